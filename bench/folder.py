"""Writes folders of the shape of ../shared/data/fidelity, as bench.fidelity and bench.scaling read
them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings

# Samples, and the split of each.
Side = tuple[Sequence[Sample], Sequence[str]]


def write_samples(folder: Path, queries: Side, candidates: Side) -> None:
    """The samples of both sides."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, response, (samples, split) in (
        ("queries", "target", queries),
        ("candidates", "response", candidates),
    ):
        rows = [(each.sample_id, each.prompt, each.response) for each in samples]
        frame = pl.DataFrame(rows, ["id", "prompt", response], orient="row")
        frame.with_columns(split=pl.Series(split)).write_parquet(folder / f"{name}.parquet")


def write_features(folder: Path, asked: np.ndarray, offered: np.ndarray) -> None:
    """Unit gradient features (n, D) of queries and of candidates."""
    np.save(folder / "query_features.npy", asked)
    np.save(folder / "candidate_features.npy", offered)


def write_influence(folder: Path, asked: np.ndarray, offered: np.ndarray, mean: np.ndarray) -> None:
    """Both truths (Q, N) float32 by the unit features (n, D) of queries and of candidates: raw
    influence, and centred by the mean (D,)."""
    centred = (rankings.centre(each, mean) for each in (asked, offered))
    np.save(folder / "influence.npy", rankings.influence(asked, offered))
    np.save(folder / "influence_centred.npy", rankings.influence(*centred))
