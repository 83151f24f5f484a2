"""Embeddings to scores: how close each sample comes to the queries of one behavior."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from influcoder_lib.errors import DataError
from influcoder_lib.vectors import COSINE_DECIMALS

# A block of samples, and one of cosines, stays below 32 MiB whatever the number of queries.
_CELLS = 1 << 22


@dataclass(frozen=True)
class Scores:
    """Scores of N samples against one behavior's Q queries.

    `mean` (N,) and `max` (N,) float32: mean and maximum over the queries of the cosine with the
    sample, in [-1, 1]; `best_query` (N,) int64: the row of the query that gave the maximum.
    """

    mean: NDArray[np.float32]
    max: NDArray[np.float32]
    best_query: NDArray[np.int64]


def score_behavior(
    embeddings: NDArray[np.float32], query_embeddings: NDArray[np.float32]
) -> Scores:
    """Mean and maximum cosine of every sample with a behavior's queries.

    `embeddings` (N, d) and `query_embeddings` (Q, d) are unit vectors, float32. Cosines are
    computed in float64 and rounded to 6 decimals, so that the block a sample falls in does not move
    its score and equal queries tie; ties of the maximum go to the lowest query row. Samples are
    processed in blocks of rows: no more than 64 MiB beside input and output. No sample (N = 0)
    gives empty scores.

    Raises:
        DataError: no query, or a vector with a number that is not finite.
        ValueError: the widths differ.
    """
    samples = _vectors(embeddings, "sample embeddings")
    queries = _vectors(query_embeddings, "query embeddings")
    if len(queries) == 0:
        raise DataError(
            "A behavior without a query cannot be scored.",
            fix="give at least one sample that shows the behavior",
        )
    if samples.shape[1] != queries.shape[1]:
        raise ValueError(f"samples are {samples.shape} but queries are {queries.shape}")
    mean = np.empty(len(samples), dtype=np.float32)
    highest = np.empty(len(samples), dtype=np.float32)
    best = np.empty(len(samples), dtype=np.int64)
    wide = queries.T.astype(np.float64)
    step = max(1, _CELLS // max(queries.shape))
    for start in range(0, len(samples), step):
        block = slice(start, start + step)
        cosines = np.round(samples[block].astype(np.float64) @ wide, COSINE_DECIMALS)
        mean[block] = np.round(cosines.mean(axis=1), COSINE_DECIMALS)
        best[block] = cosines.argmax(axis=1)
        highest[block] = cosines.max(axis=1)
    return Scores(mean=mean, max=highest, best_query=best)


def percentile(
    scores: NDArray[np.float32], calibration: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Share of the calibration scores (M,) at or below each score (N,): float32 in [0, 1].

    Raises:
        DataError: no calibration score, or a number that is not finite.
    """
    values = _finite(np.asarray(scores, dtype=np.float32), "scores")
    reference = np.sort(_finite(np.asarray(calibration, dtype=np.float32), "calibration scores"))
    if len(reference) == 0:
        raise DataError("A percentile needs calibration scores and there are none.")
    below = np.searchsorted(reference, values, side="right")
    return (below / len(reference)).astype(np.float32)


def _vectors(values: Any, name: str) -> NDArray[np.float32]:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} must be (rows, width), not {array.shape}")
    return _finite(array, name)


def _finite(array: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    finite = np.isfinite(array)
    if not finite.all():
        raise DataError(
            f"The {name} hold numbers that are not finite.",
            where=f"first in row {np.argwhere(~finite)[0][0]}",
        )
    return array
