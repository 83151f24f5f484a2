"""Tables of scores: every sample against every behavior's queries, with percentiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from influcoder_lib.curation.scores import percentile, score_behavior

STATISTICS = ("mean", "max")


@dataclass(frozen=True)
class QueryVectors:
    """A behavior's queries: their sample ids and unit vectors (Q, d) float32."""

    sample_ids: Sequence[str]
    vectors: np.ndarray


def score_table(
    sample_ids: Sequence[str], embeddings: np.ndarray, queries: Mapping[str, QueryVectors]
) -> pl.DataFrame:
    """`sample_id` and, for each behavior b, b_mean, b_max (cosines) and b_best_query (its id)."""
    columns: dict[str, pl.Series] = {"sample_id": pl.Series(sample_ids, dtype=pl.String)}
    for behavior, own in queries.items():
        scores = score_behavior(embeddings, own.vectors)
        columns[f"{behavior}_mean"] = pl.Series(scores.mean)
        columns[f"{behavior}_max"] = pl.Series(scores.max)
        best = [own.sample_ids[int(index)] for index in scores.best_query]
        columns[f"{behavior}_best_query"] = pl.Series(best, dtype=pl.String)
    return pl.DataFrame(columns)


def with_percentiles(
    scored: pl.DataFrame, calibration: pl.DataFrame, behaviors: Sequence[str]
) -> pl.DataFrame:
    """Add b_mean_percentile and b_max_percentile in [0, 1]: the share of calibration scores that
    do not exceed the sample's. `calibration` has the columns b_mean and b_max."""
    names = [f"{behavior}_{statistic}" for behavior in behaviors for statistic in STATISTICS]
    return scored.with_columns(
        pl.Series(
            f"{name}_percentile",
            percentile(scored[name].to_numpy(), calibration[name].to_numpy()),
        )
        for name in names
    )


def for_rules(scored: pl.DataFrame, statistics: Mapping[str, str]) -> pl.DataFrame:
    """Name, for each behavior b, the percentile of the statistic its rule reads b_percentile."""
    return scored.with_columns(
        pl.col(f"{behavior}_{statistic}_percentile").alias(f"{behavior}_percentile")
        for behavior, statistic in statistics.items()
    )
