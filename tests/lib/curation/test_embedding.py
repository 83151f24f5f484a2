"""Vectors that are kept: every sample is embedded once, in whatever blocks it comes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.curation import embedding
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.rows import RowStore
from influcoder_lib.samples import Sample


class Counting:
    """An encoder that counts how often it has met each sample; "long" ones do not fit, and a query
    points the other way."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()

    def read(self, samples, role="candidate", resemblance=0.0):
        self.met.update(each.sample_id for each in samples)
        vectors = np.array([vector(each) for each in samples], np.float32).reshape(-1, 2)
        vectors = -vectors if role == "query" else vectors
        return vectors, np.array(["long" in each.response for each in samples], bool)


def vector(sample: Sample) -> list[float]:
    angle = int(sample.sample_id[:8], 16)
    return [np.cos(angle), np.sin(angle)]


def sample(number: int) -> Sample:
    response = "long" if number % 3 == 0 else "short"
    return Sample(sample_id(str(number), response), str(number), response)


def stored(folder, encoder: Counting, said=lambda _: None) -> StoredVectors:
    return StoredVectors(lambda: encoder, RowStore(folder), said)


@given(st.lists(st.lists(st.integers(0, 12), max_size=9), max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_sample_is_embedded_once_and_its_vector_found_again(tmp_path_factory, numbers):
    encoder = Counting()
    blocks = [[sample(number) for number in block] for block in numbers]
    together = [each for block in blocks for each in block]
    ids = [each.sample_id for each in together]
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_BLOCK", 4)
        vectors = stored(folder, encoder)
        vectors.embed(blocks, len(together))
    assert set(encoder.met.values()) <= {1}
    assert vectors.computed == len(encoder.met) == len(set(ids))
    expected = np.array([vector(each) for each in together], np.float32).reshape(-1, 2)
    np.testing.assert_allclose(vectors.vectors(ids), expected, atol=5e-4)
    assert vectors.truncated(ids) == sum(each.response == "long" for each in together)
    again = stored(folder, encoder)
    np.testing.assert_array_equal(again.encode(together), vectors.vectors(ids))
    assert again.computed == 0
    assert set(encoder.met.values()) <= {1}


def test_what_was_embedded_before_a_kill_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_BLOCK", 4)
    samples = [sample(number) for number in range(10)]

    def killed(message: str) -> None:
        raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt, match="embedded 4, "):
        stored(tmp_path, Counting(), killed).encode(samples)
    again = stored(tmp_path, Counting())
    again.encode(samples)
    assert again.computed == 6


def test_no_sample_gives_no_vector_of_the_encoder_s_width(tmp_path):
    assert stored(tmp_path, Counting()).encode([]).shape == (0, 2)


def test_a_query_s_vector_is_its_own_and_never_a_stored_candidate_s(tmp_path):
    vectors = stored(tmp_path, Counting())
    candidates = vectors.encode([sample(1)])
    np.testing.assert_allclose(vectors.encode_queries([sample(1)]), -candidates, atol=5e-4)
    np.testing.assert_array_equal(vectors.encode([sample(1)]), candidates)


def test_the_same_queries_are_read_once_for_each_share_of_resemblance(tmp_path):
    encoder = Counting()
    vectors = stored(tmp_path, encoder)
    asked = [sample(number) for number in range(3)]
    first = vectors.encode_queries(asked, 0.5)
    np.testing.assert_array_equal(vectors.encode_queries(asked, 0.5), first)
    assert set(encoder.met.values()) == {1}
    np.testing.assert_array_equal(vectors.encode_queries(asked[::-1], 0.5), first[::-1])
    vectors.encode_queries(asked, 0.0)
    assert set(encoder.met.values()) == {3}
