"""How far the encoder in use can be trusted on one shard: its fidelity on the shard's own draw.

Fidelity falls on text unlike the distillation data; here that is noticed, for the price of a few
gradients a shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from influcoder_lib.evaluation.calibration_set import CalibrationSet
from influcoder_lib.metrics import spearman_rows

Verdict = Literal["sound", "weak", "failed", "unknown"]

LEAST_CANDIDATES = 8
_RESAMPLES = 400
_SEED = 0
_COVERAGE = (2.5, 97.5)
# Numbers of either matrix that are resampled at once: few calls, and memory that stays small.
_CELLS = 1 << 18


@dataclass(frozen=True)
class ShardFidelity:
    """Mean over held-out queries of the Spearman correlation along the shard's candidates.

    `low` and `high` bound its 95 % bootstrap interval; all three are None where it cannot be
    measured. `expected` is the encoder's own figure on its test split.
    """

    per_query: float | None
    low: float | None
    high: float | None
    candidates: int
    queries: int
    expected: float
    verdict: Verdict


def measure(
    calibration: CalibrationSet,
    query_vectors: np.ndarray,
    sample_ids: Sequence[str],
    vectors: np.ndarray,
    features: np.ndarray,
    warn_below: float,
    fail_below: float,
) -> ShardFidelity:
    """Fidelity on a shard's drawn candidates, those that the encoder was trained on left out.

    `query_vectors` (Q, d) and `vectors` (N, d) are the encoder's, `features` (N, D) the
    candidates' uncentred unit gradient features, `sample_ids` their N ids. The verdict is `weak`
    or `failed` when the whole interval lies below that share of the expected fidelity, and
    `unknown` with fewer than `LEAST_CANDIDATES` candidates or an encoder without fidelity.
    """
    known = set(calibration.trained_on) | set(calibration.queries["sample_id"])
    fresh = [row for row, sample_id in enumerate(sample_ids) if sample_id not in known]
    expected = calibration.expected.per_query
    if len(fresh) < LEAST_CANDIDATES:
        return unmeasured(calibration, len(fresh))
    predicted = query_vectors @ vectors[fresh].T
    truth = calibration.truth(features[fresh])
    found, low, high = bootstrap(predicted, truth)
    return ShardFidelity(
        per_query=found,
        low=low,
        high=high,
        candidates=len(fresh),
        queries=len(truth),
        expected=expected,
        verdict=_verdict(high, expected, warn_below, fail_below),
    )


def unmeasured(calibration: CalibrationSet, candidates: int = 0) -> ShardFidelity:
    """The finding where nothing can be measured."""
    expected = calibration.expected.per_query
    queries = len(calibration.queries)
    return ShardFidelity(None, None, None, candidates, queries, expected, "unknown")


def bootstrap(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Mean per-query Spearman correlation of two (Q, N) matrices with its 95 % interval.

    The interval is the percentile bootstrap over candidates (Efron 1979), with a fixed seed.
    """
    candidates = truth.shape[1]
    generator = np.random.default_rng(_SEED)
    draws = generator.integers(0, candidates, size=(_RESAMPLES, candidates))
    step = max(1, _CELLS // truth.size)
    means = [
        _mean_by_draw(predicted, truth, draws[start : start + step])
        for start in range(0, _RESAMPLES, step)
    ]
    low, high = np.percentile(np.concatenate(means), _COVERAGE)
    return float(spearman_rows(predicted, truth).mean()), float(low), float(high)


def _mean_by_draw(predicted: np.ndarray, truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The queries' mean correlation (R,) over each of the draws (R, N) of candidates."""
    both = (
        each[:, draws].swapaxes(0, 1).reshape(-1, truth.shape[1]) for each in (predicted, truth)
    )
    return spearman_rows(*both).reshape(len(draws), -1).mean(axis=1)


def _verdict(high: float, expected: float, warn_below: float, fail_below: float) -> Verdict:
    if expected <= 0:
        return "unknown"
    if high < fail_below * expected:
        return "failed"
    return "weak" if high < warn_below * expected else "sound"
