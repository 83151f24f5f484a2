"""The assets that turn raw files into samples: the corpus, shard by shard, and the queries."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from influcoder_assets.config import CorpusSettings, Settings
from influcoder_assets.maker import Task, asset_maker
from influcoder_lib.ingest import Columns, ingest, read_picked


@asset_maker(
    group="corpus",
    sharded=True,
    sources=("shard", "file"),
    settings=lambda s: s.corpus.model_dump(mode="json", exclude={"path", "licences"}),
    kinds=("parquet",),
    code_version="5",
)
def corpus(task: Task) -> None:
    """Valid samples of one shard, and its bad rows in quarantine with the reason."""
    settings = task.settings.corpus
    raw = task.workspace.shards[task.shard_name]
    name = task.workspace.name_of(raw)
    found = ingest(
        raw,
        name,
        Columns(**settings.columns.model_dump()),
        task.out("samples.parquet"),
        task.out("quarantine.parquet"),
        settings.max_characters,
    )
    task.draft.rows = found.valid
    task.draft.summary |= {
        "valid": found.valid,
        "quarantined": found.quarantined,
        "rows_in": found.valid + found.quarantined,
        "file": name,
    }
    if found.without:
        task.draft.summary["without_columns"] = ", ".join(found.without)


@asset_maker(
    group="corpus",
    sources=("queries",),
    settings=lambda s: {"behaviors": sorted(s.behaviors), **reference_settings(s)},
    kinds=("parquet",),
)
def behavior_queries(task: Task) -> None:
    """Samples that show each behavior: what the corpus is searched for."""
    corpus = task.settings.corpus
    frames = [
        read_reference(corpus, behavior.queries, f"behaviors.{name}.queries").with_columns(
            behavior=pl.lit(name)
        )
        for name, behavior in task.settings.behaviors.items()
    ]
    queries = pl.concat(frames)
    queries.write_parquet(task.out("queries.parquet"))
    task.draft.rows = len(queries)
    task.draft.summary |= {
        name: len(frame) for name, frame in zip(task.settings.behaviors, frames, strict=True)
    }


def reference_settings(settings: Settings) -> dict[str, Any]:
    """The settings that say how `read_reference` reads a file."""
    corpus = settings.corpus
    return {"columns": asdict(text_columns(corpus)), "max_characters": corpus.max_characters}


def read_reference(corpus: CorpusSettings, path: Path, setting: str) -> pl.DataFrame:
    """Samples of a small file that the settings name, read by the corpus's columns.

    Raises:
        DataError: see `ingest.read_picked`.
    """
    return read_picked(path, setting, text_columns(corpus), corpus.max_characters)


def text_columns(settings: CorpusSettings) -> Columns:
    """Where prompt and response stand; label and source are of shards only."""
    columns = settings.columns
    return Columns(columns.prompt, columns.response, messages=columns.messages)
