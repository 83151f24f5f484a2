"""The frozen distillation set: queries and candidates with features and splits, and the mean."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample, to_samples
from influcoder_lib.tables import load_table
from influcoder_lib.teacher import rankings

_LEAST = {"train": 4, "validation": 2, "test": 2}
SAFE_QUERIES = 30
"""A hash deals prompts to the splits; with so many queries and the default shares, 98 times of 100
each split gets its least."""


@dataclass(frozen=True)
class DistillationSet:
    """Queries and candidates as frames with a `split` column; features (n, D) float16 beside them.

    `mean` (D,) float32 is that of the train candidates.
    """

    queries: pl.DataFrame
    candidates: pl.DataFrame
    query_features: np.ndarray
    candidate_features: np.ndarray
    mean: np.ndarray

    @classmethod
    def freeze(
        cls,
        queries: pl.DataFrame,
        query_features: np.ndarray,
        candidates: pl.DataFrame,
        candidate_features: np.ndarray,
        seed: int,
        validation: float,
        test: float,
    ) -> "DistillationSet":
        """Split queries and candidates by prompt (by response, where the prompt has no word), drop
        near-duplicates of held-out ones, centre.

        Both frames need `sample_id`, `prompt` and `response`; the features (Q, D) and (N, D)
        float16 are those of their rows, of unit length. A candidate that is a query is left out
        too.

        Raises:
            DataError: a split has too few queries or candidates to learn or judge from.
        """
        topics = {"queries": _topics(queries), "candidates": _topics(candidates)}
        together = [*topics["queries"], *topics["candidates"]]
        both = rankings.splits(together, seed, validation, test)
        query_ids = set(queries["sample_id"])
        own = [
            None if sample_id in query_ids else split
            for sample_id, split in zip(candidates["sample_id"], both[len(queries) :], strict=True)
        ]
        queries, query_features = _keep(queries, query_features, both[: len(queries)])
        candidates, candidate_features = _keep(candidates, candidate_features, own)
        for name, frame in (("queries", queries), ("candidates", candidates)):
            _check_splits(name, frame, topics[name])
        train = (candidates["split"] == "train").to_numpy()
        mean = rankings.centring_mean(candidate_features[train])
        return cls(queries, candidates, query_features, candidate_features, mean)

    def rows(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows (q,) and (n,) int64 of the queries and candidates of one split."""
        queries, candidates = (
            np.flatnonzero((frame["split"] == split).to_numpy())
            for frame in (self.queries, self.candidates)
        )
        return queries, candidates

    def samples(self, split: str) -> tuple[list[Sample], list[Sample]]:
        """Queries and candidates of one split, in the order of its rows."""
        queries, candidates = self.rows(split)
        return to_samples(self.queries[queries]), to_samples(self.candidates[candidates])

    def save(self, folder: Path) -> None:
        """Write the set's files into a folder."""
        self.queries.write_parquet(folder / "queries.parquet")
        self.candidates.write_parquet(folder / "candidates.parquet")
        np.save(folder / "query_features.npy", self.query_features)
        np.save(folder / "candidate_features.npy", self.candidate_features)
        np.save(folder / "centring_mean.npy", self.mean)

    @classmethod
    def load(cls, folder: Path) -> "DistillationSet":
        """Read what `save` wrote."""
        return cls(
            load_table(folder / "queries.parquet"),
            load_table(folder / "candidates.parquet"),
            np.load(folder / "query_features.npy", allow_pickle=False),
            np.load(folder / "candidate_features.npy", allow_pickle=False),
            np.load(folder / "centring_mean.npy", allow_pickle=False),
        )

    def unit_features(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Unit features (Q, D) and (N, D) float32, `centred` or `raw`."""
        both = self.query_features, self.candidate_features
        if kind == "centred":
            return rankings.centre(both[0], self.mean), rankings.centre(both[1], self.mean)
        return both[0].astype(np.float32), both[1].astype(np.float32)

    def influence(self, kind: str) -> np.ndarray:
        """Influence (Q, N) float32 of every query on every candidate: `centred` or `raw`."""
        return rankings.influence(*self.unit_features(kind))

    def counts(self) -> dict[str, int]:
        """Queries and candidates in each split."""
        return {
            f"{split}_{name}": int((frame["split"] == split).sum())
            for name, frame in (("queries", self.queries), ("candidates", self.candidates))
            for split in _LEAST
        }


def check_queries(queries: pl.DataFrame, seed: int, validation: float, test: float) -> None:
    """Whether these queries (see `DistillationSet.freeze`) are enough, as far as that can be told
    without candidates, which may be near-duplicates of some.

    Raises:
        DataError: a split has too few.
    """
    topics = _topics(queries)
    own = pl.Series("split", rankings.splits(topics, seed, validation, test), dtype=pl.String)
    _check_splits("queries", queries.with_columns(own), topics)


def _keep(
    frame: pl.DataFrame, features: np.ndarray, splits: list[rankings.Split | None]
) -> tuple[pl.DataFrame, np.ndarray]:
    order = frame.with_columns(
        pl.Series("split", splits, dtype=pl.String), pl.int_range(pl.len()).alias("_at")
    )
    kept = order.filter(pl.col("split").is_not_null()).unique("sample_id", keep="first")
    kept = kept.sort("sample_id")
    return kept.drop("_at"), features[kept["_at"].to_numpy()]


def _topics(frame: pl.DataFrame) -> list[str]:
    """The text that decides a sample's split: its prompt, or its response if that has no word."""
    pairs = zip(frame["prompt"], frame["response"], strict=True)
    return [prompt if rankings.normalise_prompt(prompt) else response for prompt, response in pairs]


def _check_splits(name: str, frame: pl.DataFrame, topics: Sequence[str]) -> None:
    counts = {split: int((frame["split"] == split).sum()) for split in _LEAST}
    if any(counts[split] < least for split, least in _LEAST.items()):
        raise DataError(
            f"Too few {name} to distil from: {json.dumps(counts)}, of {len(topics)} given with"
            f" {len(set(topics))} different prompts.",
            where="distillation_set",
            allowed=f"at least {json.dumps(_LEAST)}",
            fix=_remedy(name, none=not topics),
        )


def _remedy(name: str, none: bool) -> str:
    if name == "queries":
        return (
            f"give {SAFE_QUERIES} query samples or more, of all behaviors together, with different"
            " prompts: a hash of the prompt decides which are held back for validation and test"
        )
    if none:
        return (
            'see why no row of the corpus is a sample: influcoder sql "SELECT reason, count(*)'
            ' FROM quarantine GROUP BY reason"'
        )
    return "raise distillation.candidates_per_shard, or add samples with new prompts"
