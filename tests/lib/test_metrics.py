"""Fidelity, AUPRC, recall and reciprocal rank: against scipy, brute-force twins and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from influcoder_lib import metrics
from influcoder_lib.errors import DataError, SettingsError


def lengths(rng, n):
    return rng.integers(0, 500, n), rng.integers(1, 900, n)


def brute_residual(row, prompt_lengths, response_lengths):
    design = np.column_stack(
        [
            np.ones(len(row)),
            rankdata(np.log(1 + np.asarray(prompt_lengths, float))),
            rankdata(np.log(1 + np.asarray(response_lengths, float))),
        ]
    )
    return row - design @ np.linalg.lstsq(design, row, rcond=None)[0]


@given(
    arrays(np.int64, (3, 9), elements=st.integers(-3, 3)),
    arrays(np.int64, (3, 9), elements=st.integers(-3, 3)),
)
def test_spearman_averages_ranks_of_ties_as_scipy_does(left, right):
    result = metrics.spearman_rows(left, right)
    for a, b, value in zip(left, right, result, strict=True):
        constant = len(set(a)) == 1 or len(set(b)) == 1
        expected = 0.0 if constant else spearmanr(a, b).statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_fidelity_matches_a_loop_over_queries_with_least_squares():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(7, 60))
    predicted = truth + rng.normal(size=truth.shape)
    prompt, response = lengths(rng, 60)
    truth -= 0.004 * response
    result = metrics.fidelity(predicted, truth, prompt, response)

    def residual(row):
        return brute_residual(row, prompt, response)

    pairs = list(zip(predicted, truth, strict=True))
    means = predicted.mean(axis=0), truth.mean(axis=0)
    plain = np.mean([spearmanr(a, b).statistic for a, b in pairs])
    taken_out = np.mean([spearmanr(residual(a), residual(b)).statistic for a, b in pairs])
    assert result.per_query == pytest.approx(plain, abs=1e-12)
    assert result.aggregated == pytest.approx(spearmanr(*means).statistic, abs=1e-12)
    assert result.per_query_without_length == pytest.approx(taken_out, abs=1e-12)
    assert result.aggregated_without_length == pytest.approx(
        spearmanr(*map(residual, means)).statistic, abs=1e-12
    )


def test_a_prediction_of_nothing_but_length_is_worth_nothing_without_length():
    rng = np.random.default_rng(0)
    prompt, response = lengths(rng, 80)
    ranks = rankdata(response)
    truth = rng.normal(size=(5, 80)) * 20 - ranks
    result = metrics.fidelity(np.tile(-0.37 * ranks, (5, 1)), truth, prompt, response)
    assert result.per_query > 0.5
    assert result.aggregated > 0.8
    assert result.per_query_without_length == 0.0
    assert result.aggregated_without_length == 0.0


def test_a_perfect_prediction_stays_perfect_without_length():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(4, 30))
    result = metrics.fidelity(3 * truth + 2, truth, *lengths(rng, 30))
    assert result == metrics.Fidelity(*(pytest.approx(1.0),) * 4)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e8 / 3])
def test_constant_predictions_have_fidelity_zero(value):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(2, 13))
    result = metrics.fidelity(np.full((2, 13), value), truth, *lengths(rng, 13))
    assert result == metrics.Fidelity(0.0, 0.0, 0.0, 0.0)


def test_equal_lengths_leave_the_plain_correlation():
    rng = np.random.default_rng(5)
    predicted, truth = rng.normal(size=(2, 6, 40))
    result = metrics.fidelity(predicted, truth, np.zeros(40), np.full(40, 7))
    assert result.per_query_without_length == pytest.approx(result.per_query)
    assert result.aggregated_without_length == pytest.approx(result.aggregated)


def test_samples_that_are_twins_tie_after_the_regression():
    rng = np.random.default_rng(8)
    values, prompt, response = rng.normal(size=17), *lengths(rng, 17)
    twice = np.tile(values, 2)[None]
    other = rng.normal(size=(1, 34))
    got = metrics.fidelity(twice, other, np.tile(prompt, 2), np.tile(response, 2))
    left = brute_residual(twice[0], np.tile(prompt, 2), np.tile(response, 2)).round(9)
    right = brute_residual(other[0], np.tile(prompt, 2), np.tile(response, 2)).round(9)
    assert len(set(left)) == 17
    assert got.per_query_without_length == pytest.approx(spearmanr(left, right).statistic)


def test_the_order_of_the_candidates_does_not_matter():
    rng = np.random.default_rng(9)
    predicted, truth = rng.integers(0, 5, size=(2, 4, 25)).astype(float)
    prompt, response = lengths(rng, 25)
    order = rng.permutation(25)
    one = metrics.fidelity(predicted, truth, prompt, response)
    other = metrics.fidelity(predicted[:, order], truth[:, order], prompt[order], response[order])
    for name in vars(one):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)


def test_fidelity_refuses_what_it_cannot_compute():
    good, counts = np.arange(6.0).reshape(2, 3), np.arange(3)
    bad = good.copy()
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match=r"predicted scores are not finite.*\n.*\(1, 2\)"):
        metrics.fidelity(bad, good, counts, counts)
    with pytest.raises(DataError, match="1 candidates"):
        metrics.fidelity(good[:, :1], good[:, :1], counts[:1], counts[:1])
    with pytest.raises(DataError, match="response length"):
        metrics.fidelity(good, good, counts, counts - 1)
    with pytest.raises(ValueError, match="but truth is"):
        metrics.fidelity(good, good[:1], counts, counts)
    with pytest.raises(ValueError, match="prompt lengths"):
        metrics.fidelity(good, good, counts[:2], counts)


def test_auprc_of_a_hand_made_ranking():
    # Positives at ranks 1 and 3: precision 1 and 2/3, half of the recall each.
    assert metrics.auprc([True, False, True, False], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(5 / 6)
    assert metrics.auprc([True, False, False, False], [0.5] * 4) == pytest.approx(0.25)


def test_recall_and_reciprocal_rank_of_hand_made_rankings():
    relevant = [[True, False, True, False], [False, False, False, True]]
    scores = [[0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.35]]
    assert metrics.recall_at_k(relevant, scores, 1) == pytest.approx((1 / 2 + 0) / 2)
    assert metrics.recall_at_k(relevant, scores, 2) == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.recall_at_k(relevant, scores, 99) == 1.0
    assert metrics.mean_reciprocal_rank(relevant, scores) == pytest.approx((1 + 1 / 2) / 2)


def test_a_tie_never_helps():
    relevant, scores = [[True, False, False]], [[0.5, 0.5, 0.5]]
    assert metrics.recall_at_k(relevant, scores, 2) == 0.0
    assert metrics.mean_reciprocal_rank(relevant, scores) == pytest.approx(1 / 3)


def test_ranking_metrics_refuse_what_they_cannot_compute():
    with pytest.raises(DataError, match="no positive"):
        metrics.auprc([False, False], [0.1, 0.2])
    with pytest.raises(DataError, match="query 1"):
        metrics.recall_at_k([[True], [False]], [[0.1], [0.2]], 1)
    with pytest.raises(DataError, match="no positive"):
        metrics.mean_reciprocal_rank(np.zeros((0, 3), bool), np.zeros((0, 3)))
    with pytest.raises(DataError, match="not finite"):
        metrics.auprc([True, False], [0.1, np.inf])
    with pytest.raises(SettingsError, match="recall at 0"):
        metrics.recall_at_k([[True]], [[0.1]], 0)
    with pytest.raises(ValueError, match="but scores are"):
        metrics.auprc([True], [0.1, 0.2])


def test_mean_and_spread_use_the_sample_standard_deviation():
    assert metrics.mean_and_spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, (7 / 3) ** 0.5))
    assert metrics.mean_and_spread([0.5]) == (0.5, 0.0)
    with pytest.raises(DataError):
        metrics.mean_and_spread([])
