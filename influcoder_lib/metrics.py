"""Numbers that say how good a ranking is: fidelity, AUPRC, Recall@k, reciprocal rank, spread.

Plain arrays in, plain floats out. Nothing here knows what a sample, an encoder or a behavior is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from influcoder_lib.errors import DataError, SettingsError

Floats = NDArray[np.float64]

# Below this share of a row's own spread, a residual is rounding noise of the regression.
_NOISE = 1e-9


@dataclass(frozen=True)
class Fidelity:
    """How well predicted scores follow the truth: Spearman correlations in [-1, 1].

    `per_query` is the mean over queries of the correlation along the candidates; `aggregated` is
    the correlation of the two score vectors averaged over queries. The two `_without_length`
    figures are the same with the candidates' lengths regressed out of prediction and truth.
    """

    per_query: float
    aggregated: float
    per_query_without_length: float
    aggregated_without_length: float


def fidelity(
    predicted: ArrayLike,
    truth: ArrayLike,
    prompt_lengths: ArrayLike,
    response_lengths: ArrayLike,
) -> Fidelity:
    """Fidelity of predicted scores to the truth, plain and with length taken out.

    `predicted` and `truth` are (Q, N), query by candidate, in any monotone unit; the lengths are
    (N,) token or character counts, 0 or more. Computed in float64.

    Ranks are average ranks, so the correlation is `scipy.stats.spearmanr`. Without length: the
    *values* of prediction and truth are regressed, query by query, on an intercept and the ranks
    of log(1 + prompt length) and log(1 + response length), and the residuals are correlated. A
    residual is rounded to a 1e-9th of its row's spread, so that equal samples tie and what length
    explains entirely counts as constant. A constant row, on either side, has correlation 0.0: no
    order was said.

    Raises:
        DataError: fewer than two candidates, no query, a score that is not finite, a negative or
            non-finite length.
        ValueError: the shapes do not belong together.
    """
    predicted, truth = _scores(predicted, "predicted"), _scores(truth, "truth")
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted is {predicted.shape} but truth is {truth.shape}")
    basis = _length_basis(prompt_lengths, response_lengths, truth.shape[1])
    mean_predicted = predicted.mean(axis=0, keepdims=True)
    mean_truth = truth.mean(axis=0, keepdims=True)
    return Fidelity(
        per_query=_mean_spearman(predicted, truth),
        aggregated=_mean_spearman(mean_predicted, mean_truth),
        per_query_without_length=_mean_spearman(
            _residuals(predicted, basis), _residuals(truth, basis)
        ),
        aggregated_without_length=_mean_spearman(
            _residuals(mean_predicted, basis), _residuals(mean_truth, basis)
        ),
    )


def spearman_rows(left: ArrayLike, right: ArrayLike) -> Floats:
    """Spearman correlation (Q,) of each row of two (Q, N) arrays; 0.0 where a row is constant."""
    a, b = _centred_ranks(np.asarray(left, float)), _centred_ranks(np.asarray(right, float))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    products = (a * b).sum(axis=1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def auprc(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision, in [0, 1].

    `is_positive` (N,) bool; `scores` (N,), higher means more positive; equal scores are one step
    of the curve. The same number as `sklearn.metrics.average_precision_score`.

    Raises:
        DataError: no positive, or a score that is not finite.
        ValueError: the shapes do not belong together.
    """
    # Takes a second to import, and commands that only look have no use for it.
    from sklearn.metrics import average_precision_score

    relevant, values = _relevance(is_positive, scores, dimensions=1)
    return float(average_precision_score(relevant, values))


def recall_at_k(is_relevant: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Share of a query's relevant candidates among its k highest scores, averaged over queries.

    `is_relevant` (Q, N) bool and `scores` (Q, N). Of equal scores the irrelevant come first, so a
    tie never helps and the order of the candidates does not matter.

    Raises:
        SettingsError: k is below 1.
        DataError: a query without a relevant candidate, or a score that is not finite.
        ValueError: the shapes do not belong together.
    """
    if k < 1:
        raise SettingsError(f"recall at {k} is not defined.", allowed="k of 1 or more")
    ranked = _ranked_relevance(is_relevant, scores)
    return float((ranked[:, :k].sum(axis=1) / ranked.sum(axis=1)).mean())


def mean_reciprocal_rank(is_relevant: ArrayLike, scores: ArrayLike) -> float:
    """Mean over queries of 1 / rank of the highest-scored relevant candidate, in (0, 1].

    Shapes, ties and errors as in `recall_at_k`.
    """
    ranked = _ranked_relevance(is_relevant, scores)
    return float((1.0 / (ranked.argmax(axis=1) + 1)).mean())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the spread of a single value is 0.0.

    Raises:
        DataError: no value.
    """
    if len(values) == 0:
        raise DataError("There is no value to average.", allowed="one value or more")
    array = np.asarray(values, dtype=np.float64)
    spread = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return float(array.mean()), spread


def _scores(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be (queries, candidates), not {array.shape}")
    if array.shape[0] < 1 or array.shape[1] < 2:
        raise DataError(
            f"Fidelity cannot be computed from {array.shape[0]} queries and "
            f"{array.shape[1]} candidates.",
            allowed="at least 1 query and 2 candidates",
        )
    _check_finite(array, name)
    return array


def _check_finite(array: NDArray[Any], name: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"{len(bad)} of the {name} scores are not finite numbers.",
            where=f"first at index {tuple(bad[0].tolist())}",
        )


def _centred_ranks(rows: Floats) -> Floats:
    ranks = scipy.stats.rankdata(rows, method="average", axis=1)
    return ranks - (rows.shape[1] + 1) / 2


def _mean_spearman(left: Floats, right: Floats) -> float:
    return float(spearman_rows(left, right).mean())


def _length_basis(prompt: ArrayLike, response: ArrayLike, candidates: int) -> Floats:
    """Orthonormal columns (N, <= 3) spanning the intercept and both length ranks."""
    columns = [np.ones(candidates)]
    for name, lengths in (("prompt", prompt), ("response", response)):
        array = np.asarray(lengths, dtype=np.float64)
        if array.shape != (candidates,):
            raise ValueError(f"{name} lengths are {array.shape}, not ({candidates},)")
        if not np.all(np.isfinite(array)) or np.any(array < 0):
            raise DataError(f"A {name} length is not a count.", allowed="finite numbers from 0 up")
        ranks = scipy.stats.rankdata(np.log1p(array))
        columns.append((ranks - ranks.mean()) / candidates)
    # Equal lengths, or prompts ranked as their responses, leave fewer than three directions.
    left, singular, _ = np.linalg.svd(np.column_stack(columns), full_matrices=False)
    return left[:, singular > 1e-10 * singular[0]]


def _residuals(rows: Floats, basis: Floats) -> Floats:
    # Centring first keeps digits when all values share a large offset.
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = np.abs(centred).max(axis=1, keepdims=True)
    residuals = centred - (centred @ basis) @ basis.T
    # "+ 0.0" turns -0.0 into 0.0; ranks do not see the difference, readers do.
    return np.round(residuals / np.where(spread > 0, spread, 1.0) / _NOISE) + 0.0


def _relevance(
    is_relevant: ArrayLike, scores: ArrayLike, dimensions: int
) -> tuple[NDArray[np.bool_], Floats]:
    relevant = np.asarray(is_relevant, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if relevant.shape != values.shape or relevant.ndim != dimensions:
        raise ValueError(f"relevance is {relevant.shape} but scores are {values.shape}")
    _check_finite(values, "given")
    without = np.flatnonzero(~np.atleast_2d(relevant).any(axis=1))
    if relevant.size == 0 or len(without):
        raise DataError(
            "There is no positive to find.",
            where=f"query {without[0]}" if dimensions == 2 and len(without) else "",
            allowed="at least one positive candidate a query",
        )
    return relevant, values


def _ranked_relevance(is_relevant: ArrayLike, scores: ArrayLike) -> NDArray[np.bool_]:
    """Relevance (Q, N) of each query's candidates from the highest score down."""
    relevant, values = _relevance(is_relevant, scores, dimensions=2)
    order = np.lexsort((relevant, -values), axis=1)
    return np.take_along_axis(relevant, order, axis=1)
