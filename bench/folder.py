"""Writes folders of the shape of ../shared/data/fidelity, as bench.fidelity and bench.scaling read
them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_lib.samples import Sample


def write_samples(
    folder: Path,
    queries: Sequence[Sample],
    candidates: Sequence[Sample],
    splits: Sequence[Sequence[str]] | None = None,
) -> None:
    """Both sides' samples, each with its split if `splits` names those of either side."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, (name, side, response) in enumerate(
        (("queries", queries, "target"), ("candidates", candidates, "response"))
    ):
        rows = [(each.sample_id, each.prompt, each.response) for each in side]
        frame = pl.DataFrame(rows, ["id", "prompt", response], orient="row")
        if splits:
            frame = frame.with_columns(split=pl.Series(splits[place]))
        frame.write_parquet(folder / f"{name}.parquet")


def write_features(folder: Path, asked: np.ndarray, offered: np.ndarray) -> None:
    """Gradient features (n, D) of queries and of candidates."""
    np.save(folder / "query_features.npy", asked)
    np.save(folder / "candidate_features.npy", offered)


def write_influence(folder: Path, raw: np.ndarray, centred: np.ndarray) -> None:
    """Both truths (Q, N), each query's influence on each candidate."""
    np.save(folder / "influence.npy", raw)
    np.save(folder / "influence_centred.npy", centred)
