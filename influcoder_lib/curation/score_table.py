"""Tables of scores: every sample against every behavior's queries, with percentiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl

from influcoder_lib.curation.rules import Statistic
from influcoder_lib.curation.scores import percentile, score_behavior
from influcoder_lib.errors import StoreError
from influcoder_lib.id_table import IdTable, keys_of

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


@dataclass(frozen=True)
class QueryVectors:
    """A behavior's queries: their sample ids and unit vectors (Q, d) float32."""

    sample_ids: Sequence[str]
    vectors: np.ndarray


def score_table(
    sample_ids: Sequence[str] | pl.Series,
    embeddings: np.ndarray,
    queries: Mapping[str, QueryVectors],
) -> pl.DataFrame:
    """`sample_id` and, for each behavior b, b_mean, b_max (cosines, Float32) and b_best_query (its
    id); `embeddings` (N, d) are unit vectors, float32.

    Raises:
        DataError: a behavior has no query, or a vector a number that is not finite.
    """
    columns: dict[str, pl.Series] = {"sample_id": pl.Series(sample_ids, dtype=pl.String)}
    for behavior, own in queries.items():
        scores = score_behavior(embeddings, own.vectors)
        columns[f"{behavior}_mean"] = pl.Series(scores.mean)
        columns[f"{behavior}_max"] = pl.Series(scores.max)
        ids = pl.Series(own.sample_ids, dtype=pl.String)
        columns[f"{behavior}_best_query"] = ids.gather(scores.best_query)
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


class Scorer:
    """Scores of one encoder's vectors, block by block.

    `before` has scores from the same queries, calibration and encoder; they are taken over. Of
    all samples that came, `scored` counts those that were not among them.
    """

    def __init__(
        self,
        queries: Mapping[str, QueryVectors],
        calibration: pl.DataFrame,
        encoder: str,
        before: pl.DataFrame,
    ) -> None:
        self.scored = 0
        self._queries = queries
        self._calibration = calibration
        self._encoder = encoder
        self._before = before
        self._rows = IdTable()
        self._rows.setdefault(keys_of(before["sample_id"].to_list()), np.arange(len(before)))

    def score(self, sample_ids: pl.Series, vectors: np.ndarray) -> pl.DataFrame:
        """The table of scores with percentiles and `encoder`, for ids (n,) and unit vectors (n, d)
        float32."""
        rows = self._rows.get(keys_of(sample_ids.to_list()))
        new = rows < 0
        self.scored += int(new.sum())
        scored = score_table(sample_ids.filter(new), vectors[new], self._queries)
        scored = with_percentiles(scored, self._calibration, list(self._queries))
        scored = scored.with_columns(encoder=pl.lit(self._encoder))
        if new.all():
            return scored
        both = pl.concat([scored, self._before[rows[~new]].select(scored.columns)])
        order = np.concatenate([np.flatnonzero(new), np.flatnonzero(~new)])
        return both[np.argsort(order)]


def beside(samples: pl.DataFrame, scored: pl.DataFrame) -> pl.DataFrame:
    """Samples and their scores, row by row.

    Raises:
        StoreError: the rows are not those of the same samples.
    """
    if not samples["sample_id"].equals(scored["sample_id"]):
        raise StoreError(
            "The scores of a shard are not those of its samples.",
            where=", ".join(samples["file"].unique().sort()),
            fix="materialise corpus_embeddings and influence_scores of this shard again",
        )
    return pl.concat([samples, scored.drop("sample_id")], how="horizontal")
