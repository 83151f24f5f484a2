"""The draw of candidates, and features that a killed run leaves for the next one."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError
from influcoder_lib.rows import RowStore
from influcoder_lib.samples import SAMPLE_SCHEMA, Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import fresh_adapter
from influcoder_lib.teacher.collection import collect, draw, draw_rows, share_out
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from tests.tiny import tiny_target

PAIRS = [(f"question {n}", "answer" + " again" * (n % 3)) for n in range(9)]
PAIRS.insert(4, ("long " * 20, "short"))
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in PAIRS]
EMPTY = Sample(fingerprint.sample_id("nothing", ""), "nothing", "")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 3))
def test_a_share_of_too_many_candidates_is_even_and_the_first_of_each_draw(sizes, count, seed):
    drawn = [[f"{shard} {n}" for n in range(size)] for shard, size in enumerate(sizes)]
    found = share_out(drawn, count, seed)
    assert sum(found) == min(count, sum(sizes))
    rounds = max(found)
    for size, own in zip(sizes, found, strict=True):
        assert own <= size
        assert own >= min(size, rounds - 1)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> GradientFeatures:
    folder = tiny_target(tmp_path_factory.mktemp("target"), "llama")
    target = load_target(folder, "float32")
    return GradientFeatures(target, fresh_adapter(target.model, 2, 0), CountSketch(64, 0), 48, 96)


@pytest.fixture
def computed(engine: GradientFeatures, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the engine computes."""
    sizes: list[int] = []
    plain = engine._batch

    def watched(indices, spans):
        sizes.append(len(indices))
        return plain(indices, spans)

    monkeypatch.setattr(engine, "_batch", watched)
    return sizes


def quiet(message: str) -> None:
    pass


def expected_features(engine: GradientFeatures, samples: list[Sample]) -> np.ndarray:
    return np.concatenate([next(engine.features([sample])).rows for sample in samples])


ids = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), unique=True, max_size=20)


@given(ids, st.integers(0, 8), st.integers(0, 3))
def test_the_lowest_hashes_are_drawn_lowest_first(sample_ids, count, seed):
    keys = [fingerprint.draw_key(seed, sample_ids[i]) for i in draw(sample_ids, count, seed)]
    assert keys == sorted(fingerprint.draw_key(seed, each) for each in sample_ids)[:count]


@given(ids.flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))), st.integers(0, 8))
def test_the_order_of_a_shard_does_not_matter(pair, count):
    given_ids, shuffled = pair
    drawn = [given_ids[i] for i in draw(given_ids, count, 0)]
    assert [shuffled[i] for i in draw(shuffled, count, 0)] == drawn


def test_more_candidates_only_add_to_fewer_and_the_seed_decides():
    sample_ids = [sample.sample_id for sample in SAMPLES]
    assert draw(sample_ids, 3, 0) == draw(sample_ids, 7, 0)[:3]
    assert draw(sample_ids, 7, 0) != draw(sample_ids, 7, 1)
    assert sorted(draw(sample_ids, 99, 0)) == list(range(len(SAMPLES)))


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["unsafe", "benign", None]))),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    count=st.integers(0, 12),
    seed=st.integers(0, 3),
)
def test_rows_drawn_block_by_block_are_the_lowest_hashes_of_all(rows, cuts, count, seed):
    """So that a corpus need not be in memory."""
    given_rows = [{"sample_id": f"{number:032x}", "label": label} for number, label in rows]
    samples = pl.DataFrame(given_rows, SAMPLE_SCHEMA)
    bounds = [0, *sorted(cuts), len(samples)]
    blocks = (samples[start : max(start, end)] for start, end in pairwise(bounds))
    labels: dict[str, str | None] = {}
    for row in given_rows:
        labels.setdefault(row["sample_id"], row["label"])
    chosen = sorted(labels, key=lambda each: fingerprint.draw_key(seed, each))[:count]
    drawn = draw_rows(blocks, count, seed)
    assert drawn.schema == SAMPLE_SCHEMA
    assert drawn.select("sample_id", "label").rows() == [(each, labels[each]) for each in chosen]


def test_features_are_in_the_order_of_the_samples(engine, tmp_path):
    found = collect(lambda: engine, SAMPLES, RowStore(tmp_path), 64, quiet)
    assert found.samples == SAMPLES
    assert found.features.dtype == np.float16
    np.testing.assert_allclose(found.features, expected_features(engine, SAMPLES), atol=1e-3)
    assert found.computed == len(SAMPLES)
    assert found.truncated == 1
    assert found.unusable == {}


def test_only_what_is_missing_is_computed(engine, computed, tmp_path):
    collect(lambda: engine, SAMPLES[2:6], RowStore(tmp_path), 64, quiet)
    computed.clear()
    found = collect(lambda: engine, SAMPLES, RowStore(tmp_path), 64, quiet)
    assert sum(computed) == found.computed == len(SAMPLES) - 4
    assert found.samples == SAMPLES
    np.testing.assert_allclose(found.features, expected_features(engine, SAMPLES), atol=1e-3)
    computed.clear()
    again = collect(lambda: engine, list(reversed(SAMPLES)), RowStore(tmp_path), 64, quiet)
    assert computed == []
    assert again.computed == 0
    np.testing.assert_array_equal(again.features, found.features[::-1])


def test_a_killed_run_loses_only_the_batch_in_hand(engine, computed, tmp_path):
    def kill(message: str) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        collect(lambda: engine, SAMPLES, RowStore(tmp_path), 64, kill)
    first = sum(computed)
    assert 0 < first < len(SAMPLES)
    assert len(RowStore(tmp_path)) == first
    computed.clear()
    found = collect(lambda: engine, SAMPLES, RowStore(tmp_path), 64, quiet)
    assert sum(computed) == found.computed == len(SAMPLES) - first
    np.testing.assert_allclose(found.features, expected_features(engine, SAMPLES), atol=1e-3)


def test_an_unusable_sample_is_named_with_its_reason_and_has_no_feature(engine, tmp_path):
    for _ in range(2):
        found = collect(
            lambda: engine, [SAMPLES[0], EMPTY, SAMPLES[1]], RowStore(tmp_path), 64, quiet
        )
        assert found.samples == SAMPLES[:2]
        assert len(found.features) == 2
        reason = "the response has no token: its loss span is empty"
        assert found.unusable == {EMPTY.sample_id: reason}


@pytest.mark.parametrize("samples", [[], [EMPTY]], ids=["none", "none usable"])
def test_no_feature_is_an_empty_table_of_the_same_width(engine, tmp_path, samples):
    found = collect(lambda: engine, samples, RowStore(tmp_path), 64, quiet)
    assert found.samples == []
    assert found.features.shape == (0, 64)
    assert found.features.dtype == np.float16


def test_progress_counts_up_to_all_samples(engine, tmp_path: Path):
    said: list[str] = []
    collect(lambda: engine, [*SAMPLES, EMPTY], RowStore(tmp_path), 64, said.append)
    total = len(SAMPLES) + 1
    assert len(said) > 2
    assert said[0].startswith(f"gradients of 1 of {total} samples")
    assert said[-1].startswith(f"gradients of {total} of {total} samples")
    assert said[-1].endswith(" 0 s left")


def test_batches_that_do_not_fit_into_memory_are_split_and_give_the_same_features(
    engine, tmp_path, monkeypatch
):
    roomy = GradientFeatures(engine.target, engine.layers, engine.sketch, 48, 96)
    tight = GradientFeatures(engine.target, engine.layers, engine.sketch, 48, 96)
    expected = collect(lambda: roomy, SAMPLES, RowStore(tmp_path / "roomy"), 64, quiet)
    plain = tight._batch

    def short_of_memory(indices, spans):
        if len(spans) * max(len(span.ids) for span in spans) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(indices, spans)

    monkeypatch.setattr(tight, "_batch", short_of_memory)
    found = collect(lambda: tight, SAMPLES, RowStore(tmp_path / "tight"), 64, quiet)
    assert found.samples == expected.samples
    np.testing.assert_allclose(found.features, expected.features, atol=1e-3)
    assert expected.tokens_per_batch == 96
    assert found.tokens_per_batch <= 50


def test_a_sample_that_does_not_fit_alone_is_named_and_leaves_what_was_computed(
    engine, tmp_path, monkeypatch
):
    tight = GradientFeatures(engine.target, engine.layers, engine.sketch, 48, 96)
    monkeypatch.setattr(tight, "_batch", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ModelError, match="not enough memory for 48 tokens") as caught:
        collect(lambda: tight, SAMPLES, RowStore(tmp_path), 64, quiet)
    assert caught.value.where == f"sample {SAMPLES[4].sample_id}"
    assert "lower target_model.window" in caught.value.fix
