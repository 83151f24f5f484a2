"""Scores and percentiles against a plain double loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.curation import scores
from influcoder_lib.errors import DataError
from influcoder_lib.vectors import unit_rows


def unit(rng, rows, width=8):
    vectors = rng.normal(size=(rows, width)).astype(np.float32)
    return unit_rows(vectors)


def test_scores_equal_a_loop_over_samples_and_queries():
    rng = np.random.default_rng(0)
    samples, queries = unit(rng, 50), unit(rng, 7)
    result = scores.score_behavior(samples, queries)
    for row, sample in enumerate(samples):
        cosines = [float(np.dot(sample.astype(float), query)) for query in queries]
        assert result.mean[row] == pytest.approx(sum(cosines) / 7, abs=2e-6)
        assert result.max[row] == pytest.approx(max(cosines), abs=2e-6)
        assert result.best_query[row] == cosines.index(max(cosines))
    assert (result.mean.dtype, result.max.dtype) == (np.float32, np.float32)
    assert result.best_query.dtype == np.int64


def test_blocks_do_not_move_a_score(monkeypatch):
    rng = np.random.default_rng(1)
    samples, queries = unit(rng, 101, 384), unit(rng, 13, 384)
    whole = scores.score_behavior(samples, queries)
    monkeypatch.setattr(scores, "_CELLS", 13 * 4)
    blocked = scores.score_behavior(samples, queries)
    alone = [scores.score_behavior(samples[[row]], queries) for row in range(len(samples))]
    assert (blocked.mean == whole.mean).all()
    assert (blocked.max == whole.max).all()
    assert [each.mean[0] for each in alone] == whole.mean.tolist()
    assert [each.max[0] for each in alone] == whole.max.tolist()
    assert (blocked.best_query == whole.best_query).all()


def test_equal_queries_tie_and_the_first_is_named():
    rng = np.random.default_rng(2)
    queries = np.tile(unit(rng, 1, 384), (37, 1))
    result = scores.score_behavior(unit(rng, 40, 384), queries)
    assert not result.best_query.any()
    # What makes them tie: scores stand on a grid far coarser than rounding error.
    for values in (result.max, result.mean):
        np.testing.assert_array_equal(values, np.round(values.astype(float), 6).astype(np.float32))
    np.testing.assert_allclose(result.mean, result.max, atol=1e-6)


def test_an_empty_shard_has_empty_scores():
    result = scores.score_behavior(np.empty((0, 3), np.float32), np.eye(3, dtype=np.float32))
    assert len(result.mean) == len(result.max) == len(result.best_query) == 0


def test_scoring_refuses_missing_queries_broken_vectors_and_other_widths():
    good = np.eye(3, dtype=np.float32)
    broken = good.copy()
    broken[1, 0] = np.nan
    with pytest.raises(DataError, match="without a query"):
        scores.score_behavior(good, good[:0])
    with pytest.raises(DataError, match=r"sample embeddings(.|\n)*row 1"):
        scores.score_behavior(broken, good)
    with pytest.raises(DataError, match="query embeddings"):
        scores.score_behavior(good, broken)
    with pytest.raises(ValueError, match="but queries are"):
        scores.score_behavior(good, good[:, :2])


SCORE = st.integers(-4, 4).map(lambda step: step / 4)


@given(st.lists(SCORE), st.lists(SCORE, min_size=1))
def test_percentile_is_the_share_of_calibration_scores_at_or_below(values, calibration):
    result = scores.percentile(np.array(values), np.array(calibration))
    expected = [sum(c <= v for c in calibration) / len(calibration) for v in values]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.array(expected, dtype=np.float32))


def test_percentile_refuses_an_empty_calibration_set_and_numbers_that_are_none():
    with pytest.raises(DataError, match="there are none"):
        scores.percentile(np.zeros(2), np.zeros(0))
    with pytest.raises(DataError, match="calibration scores"):
        scores.percentile(np.zeros(2), np.array([0.0, np.nan]))
