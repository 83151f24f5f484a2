"""Asset checks: which artifact is looked at how. The looking itself is `influcoder_lib.quality`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_assets.maker import Task
from influcoder_assets.teacher import open_engine
from influcoder_lib import quality, student
from influcoder_lib.curation import index
from influcoder_lib.evaluation.shard_fidelity import ShardFidelity
from influcoder_lib.quality import Finding
from influcoder_lib.samples import to_samples
from influcoder_lib.tables import load_table

_SKETCHED = 6
_REEMBEDDED = 32


@dataclass(frozen=True)
class Check:
    """A check of one asset: its name, and what looks at it."""

    asset: str
    name: str
    look: Callable[[Task], Finding]

    @property
    def description(self) -> str:
        """The docstring of the function that looks."""
        return self.look.__doc__ or ""


CHECKS: list[Check] = []


def _check(asset: str) -> Callable[[Callable[[Task], Finding]], Callable[[Task], Finding]]:
    def register(look: Callable[[Task], Finding]) -> Callable[[Task], Finding]:
        CHECKS.append(Check(asset, look.__name__, look))
        return look

    return register


def of(asset: str) -> list[Check]:
    """The checks of an asset."""
    return [check for check in CHECKS if check.asset == asset]


@_check("corpus")
def ids_unique(task: Task) -> Finding:
    """No sample id is in the shard twice."""
    return quality.ids_unique(_column(task, "corpus", "samples.parquet"))


@_check("gradient_projections")
def features_sound(task: Task) -> Finding:
    """Gradient features are finite, non-zero and of unit length."""
    path = task.file("gradient_projections", "features.npy", task.shard)
    return quality.features_sound(np.load(path))


@_check("distillation_set")
def sketch_error_within_bound(task: Task) -> Finding:
    """Cosines of sketched gradients are near those of the full gradients."""
    candidates = load_table(task.file("distillation_set", "candidates.parquet"))
    shortest = candidates.sort(
        pl.col("prompt").str.len_chars() + pl.col("response").str.len_chars(), "sample_id"
    )
    return quality.sketch_error(open_engine(task), to_samples(shortest.head(_SKETCHED)))


@_check("champion_encoder")
def encoder_beats_untrained(task: Task) -> Finding:
    """The challenger beats the untrained encoder on the test split; if not, it is not promoted."""
    summary = task.input("champion_encoder").summary
    names = ("challenger", "untrained")
    return quality.beats(summary["merit_challenger"], summary["merit_untrained"], names)


@_check("influence_encoder")
def registry_copy_is_exact(task: Task) -> Finding:
    """The registry's copy of the encoder embeds 32 texts exactly as the stored one does."""
    summary = task.input("influence_encoder").summary
    candidates = load_table(task.file("distillation_set", "candidates.parquet"))
    samples = to_samples(candidates.head(_REEMBEDDED))
    stored = task.folder("influence_encoder") / "encoder"
    with tempfile.TemporaryDirectory() as folder:
        copy = task.workspace.registry.download(summary["version"], Path(folder))
        vectors = [
            student.encoder.InfluenceEncoder.load(each, summary["window"]).encode(samples)
            for each in (stored, copy)
        ]
    return quality.same_vectors(*vectors)


@_check("corpus_embeddings")
def embeddings_sound(task: Task) -> Finding:
    """Every sample of the shard has a vector of unit length."""
    stored = task.file("corpus_embeddings", index.VECTORS, task.shard)
    return quality.embeddings_sound(index.lengths(stored), task.input("corpus", task.shard).rows)


@_check("influence_scores")
def no_query_in_corpus(task: Task) -> Finding:
    """No query is itself a sample of this shard."""
    queries = load_table(task.file("query_embeddings", "queries.parquet"))
    return quality.no_query_in_corpus(
        queries["sample_id"].to_list(), _column(task, "influence_scores", "scores.parquet")
    )


@_check("influence_scores")
def fidelity_holds(task: Task) -> Finding:
    """The champion follows the true gradients of this shard's own draw about as well as it does on
    its test split; warns, then fails, as `fidelity` in the settings says."""
    found = task.input("influence_scores", task.shard).summary["fidelity"]
    return quality.fidelity_holds(ShardFidelity(**found))


@_check("filtered_dataset")
def counts_add_up(task: Task) -> Finding:
    """Rows in = kept + dropped + quarantined, counted in the stored files."""
    kept, dropped = (
        len(_column(task, "filtered_dataset", f"{name}.parquet")) for name in ("kept", "dropped")
    )
    bad = len(load_table(task.file("corpus", "quarantine.parquet", task.shard), columns=["row"]))
    rows_in = task.input("corpus", task.shard).summary["rows_in"]
    return quality.counts_add_up(rows_in, kept, dropped, bad)


def _column(task: Task, asset: str, name: str) -> list[str]:
    table = load_table(task.file(asset, name, task.shard), columns=["sample_id"])
    return table["sample_id"].to_list()
