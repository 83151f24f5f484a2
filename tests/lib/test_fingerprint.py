"""Fingerprints: equal content, equal fingerprint; any other content, another one."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib import fingerprint

texts = st.lists(st.text(max_size=6), max_size=4)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def test_a_fingerprint_is_the_first_half_of_a_sha256():
    assert fingerprint.of_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()[:32]


def test_the_fingerprint_of_a_sample_never_changes():
    assert fingerprint.sample_id("a prompt", "a response") == "1093fe16c2edb6467315ea7782671c67"


@given(texts, texts)
def test_boundaries_between_texts_count(left, right):
    equal = fingerprint.of_text(*left) == fingerprint.of_text(*right)
    assert equal == (left == right)


def test_moving_a_boundary_gives_another_fingerprint():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("a", "b", "c")]
    assert len({fingerprint.of_text(*each) for each in parts}) == len(parts)
    assert fingerprint.sample_id("ab", "c") != fingerprint.sample_id("a", "bc")


@given(st.text(), st.text())
def test_a_text_is_measured_in_bytes_and_odd_ones_are_taken_too(left, right):
    assert fingerprint.of_text("\ud800" + left, right) != fingerprint.of_text(left, right)
    assert fingerprint.of_text("é") != fingerprint.of_text("e\u0301")


@given(st.dictionaries(st.text(max_size=3), values, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_matter(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert fingerprint.of_json({key: value[key] for key in keys}) == fingerprint.of_json(value)


@given(values)
def test_json_read_back_has_the_same_fingerprint(value):
    assert fingerprint.of_json(json.loads(json.dumps(value))) == fingerprint.of_json(value)


@given(values, values)
def test_other_json_has_another_fingerprint(left, right):
    equal = fingerprint.of_json(left) == fingerprint.of_json(right)
    assert equal == (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_json_cannot_write_is_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint.of_json(value)
    with pytest.raises(TypeError, match="not JSON serializable"):
        fingerprint.of_json({"a": {1, 2}})


def test_a_file_is_its_bytes_however_many_blocks_it_has(tmp_path):
    for size in (0, 5, 1 << 20, (1 << 20) + 7):
        data = bytes(np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8))
        (tmp_path / "file").write_bytes(data)
        assert fingerprint.of_file(tmp_path / "file") == fingerprint.of_bytes(data)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3)), st.randoms())
def test_pairs_are_a_set(pairs, random):
    shuffled = list(pairs.items())
    random.shuffle(shuffled)
    assert fingerprint.of_pairs(shuffled) == fingerprint.of_pairs(pairs.items())


def test_an_array_is_its_dtype_shape_and_values():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = fingerprint.of_array(array)
    assert fingerprint.of_array(np.asfortranarray(array)) == same
    assert fingerprint.of_array(np.repeat(array, 2, axis=1)[:, ::2]) == same
    others = [array.reshape(3, 2), array.astype(np.float64), array + 1, array.view(np.int32)]
    assert len({same, *map(fingerprint.of_array, others)}) == 5


@given(st.integers(0, 9), st.text(max_size=5))
def test_a_draw_key_is_64_bits_of_seed_and_identity(seed, identity):
    key = fingerprint.draw_key(seed, identity)
    assert 0 <= key < 2**64
    assert key == fingerprint.draw_key(seed, identity)
    assert key != fingerprint.draw_key(seed + 1, identity)


def test_draw_keys_are_spread_evenly():
    keys = np.array([fingerprint.draw_key(0, str(n)) / 2**64 for n in range(4000)])
    counts, _ = np.histogram(keys, bins=8, range=(0, 1))
    assert counts.min() > 420
    assert counts.max() < 580
