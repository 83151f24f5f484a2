"""Fidelity on a shard: against the plain definition, what is left out, and when it is trusted."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from influcoder_lib import quality
from influcoder_lib.evaluation.calibration_set import CalibrationSet
from influcoder_lib.evaluation.shard_fidelity import LEAST_CANDIDATES, bootstrap, measure
from influcoder_lib.metrics import Fidelity
from influcoder_lib.teacher.distillation_set import DistillationSet
from influcoder_lib.vectors import unit_rows

WIDTH = 16
EXPECTED = Fidelity(0.5, 0.6, 0.1, 0.2)


def unit(rows: int, seed: int, width: int = WIDTH) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return unit_rows(values).astype(np.float32)


def frame(names: list[str], splits: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": names, "prompt": names, "response": names, "split": splits})


@pytest.fixture(scope="module")
def frozen() -> DistillationSet:
    """Four queries and six candidates; half of each are held back."""
    splits = ["train", "test"]
    candidates = unit(6, 1).astype(np.float16)
    return DistillationSet(
        frame([f"q{n}" for n in range(4)], splits * 2),
        frame([f"c{n}" for n in range(6)], splits * 3),
        unit(4, 0).astype(np.float16),
        candidates,
        candidates[::2].astype(np.float32).mean(axis=0),
    )


@pytest.fixture(scope="module")
def calibration(frozen: DistillationSet) -> CalibrationSet:
    return CalibrationSet.of(frozen, "teacher", "centred", EXPECTED)


def test_a_calibration_set_is_what_no_encoder_is_trained_on(calibration):
    assert calibration.candidates["sample_id"].to_list() == ["c1", "c3", "c5"]
    assert calibration.trained_on == ["c0", "c2", "c4"]
    assert [sample.sample_id for sample in calibration.samples()] == ["q1", "q3"]
    assert len(calibration.query_features) == 2


def test_a_calibration_set_comes_back_as_it_was_saved(calibration, tmp_path):
    calibration.save(tmp_path / "set")
    found = CalibrationSet.load(tmp_path / "set")
    for name in ("trained_on", "teacher", "influence", "expected"):
        assert getattr(found, name) == getattr(calibration, name)
    assert found.candidates.equals(calibration.candidates)
    assert found.queries.equals(calibration.queries)
    np.testing.assert_array_equal(found.query_features, calibration.query_features)
    np.testing.assert_array_equal(found.mean, calibration.mean)


@pytest.mark.parametrize("kind", ["centred", "raw"])
def test_the_truth_is_the_influence_of_the_distillation_set(frozen, kind):
    whole = frozen.influence(kind)
    calibration = CalibrationSet.of(frozen, "teacher", kind, EXPECTED)
    np.testing.assert_allclose(
        calibration.truth(frozen.candidate_features), whole[1::2], rtol=1e-5, atol=1e-6
    )


def test_the_figure_is_the_mean_spearman_correlation_of_the_queries():
    predicted, truth = unit(3, 2, 20), unit(3, 3, 20)
    found, low, high = bootstrap(predicted, truth)
    expected = np.mean([spearmanr(p, t).statistic for p, t in zip(predicted, truth, strict=True)])
    assert found == pytest.approx(expected)
    assert low < found < high
    assert bootstrap(predicted, truth) == (found, low, high)


def test_the_interval_narrows_with_more_candidates_and_closes_on_a_perfect_prediction():
    def width(candidates: int) -> float:
        truth = unit(4, 5, candidates)
        _, low, high = bootstrap(truth + unit(4, 6, candidates), truth)
        return high - low

    assert width(400) < width(40) / 2
    truth = unit(2, 7, 30)
    found, low, high = bootstrap(3 * truth, truth)
    assert (found, low, high) == pytest.approx((1.0, 1.0, 1.0))


@given(st.integers(0, 50))
def test_the_interval_holds_its_coverage_roughly(seed):
    """A correlation of 0.6 between 200 candidates: an interval that misses it by far is wrong."""
    dice = np.random.default_rng(seed)
    shared = dice.normal(size=(1, 200))
    left, right = (shared + 0.8 * dice.normal(size=(1, 200)) for _ in range(2))
    _, low, high = bootstrap(left, right)
    assert low - 0.1 < 0.59 < high + 0.1


def shard(calibration: CalibrationSet, agreement: float, count: int = 60, expected: float = 0.5):
    """What is measured on a shard whose vectors follow the gradients more or less."""
    features = unit(count, 8)
    truth = calibration.truth(features)
    noise = np.random.default_rng(9).normal(size=truth.shape) * truth.std()
    scores = agreement * truth + (1 - abs(agreement)) * noise
    # Query vectors that are the axes give the wanted scores as the candidates' own coordinates.
    return measure(
        replace(calibration, expected=replace(EXPECTED, per_query=expected)),
        np.eye(len(truth), dtype=np.float32),
        [f"n{n}" for n in range(count)],
        scores.T.astype(np.float32),
        features.astype(np.float16),
        warn_below=0.8,
        fail_below=0.5,
    )


@pytest.mark.parametrize(
    ("agreement", "expected", "verdict", "passed", "is_error"),
    [
        (0.9, 0.5, "sound", True, False),
        (0.5, 0.95, "weak", False, False),
        (0.0, 0.9, "failed", False, True),
        (-0.9, 0.5, "failed", False, True),
        (0.0, 0.0, "unknown", True, False),
    ],
)
def test_a_shard_warns_then_fails_as_fidelity_falls(
    calibration, agreement, expected, verdict, passed, is_error
):
    found = shard(calibration, agreement, expected=expected)
    assert found.verdict == verdict
    assert found.low <= found.per_query <= found.high
    finding = quality.fidelity_holds(found)
    assert (finding.passed, finding.is_error) == (passed, is_error)
    assert verdict in finding.message


def test_candidates_that_the_encoder_was_trained_on_say_nothing(calibration):
    names = [*calibration.trained_on, "q1", *[f"n{n}" for n in range(LEAST_CANDIDATES)]]
    features = unit(len(names), 8).astype(np.float16)
    vectors = unit(len(names), 9)
    arguments = (calibration, unit(2, 10), names, vectors, features, 0.8, 0.5)
    found = measure(*arguments)
    assert (found.candidates, found.queries) == (LEAST_CANDIDATES, 2)
    changed = vectors.copy()
    changed[:4] = unit(4, 11)
    assert measure(calibration, unit(2, 10), names, changed, features, 0.8, 0.5) == found


def test_too_few_candidates_are_no_verdict(calibration):
    found = shard(calibration, 0.0, count=LEAST_CANDIDATES - 1)
    assert (found.verdict, found.per_query, found.low, found.high) == ("unknown", None, None, None)
    assert found.candidates == LEAST_CANDIDATES - 1
    finding = quality.fidelity_holds(found)
    assert finding.passed
    assert f"not measured: {LEAST_CANDIDATES - 1} candidates" in finding.message
