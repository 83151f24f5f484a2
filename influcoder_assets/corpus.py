"""The assets that turn raw files into samples: the corpus, shard by shard, and the queries."""

from pathlib import Path

import polars as pl

from influcoder_assets.maker import Task, asset_maker
from influcoder_lib.errors import DataError
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.samples import read_samples


@asset_maker(
    group="corpus",
    sharded=True,
    sources=("shard",),
    settings=lambda s: s.corpus.model_dump(mode="json", exclude={"path", "licences"}),
    kinds=("parquet",),
)
def corpus(task: Task) -> None:
    """Valid samples of one shard, and its bad rows in quarantine with the reason."""
    settings = task.settings.corpus
    raw = task.workspace.shards[task.shard_name]
    name = raw.name if raw == settings.path else raw.relative_to(settings.path).as_posix()
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


@asset_maker(
    group="corpus",
    sources=("queries",),
    settings=lambda s: {"behaviors": sorted(s.behaviors), "columns": s.corpus.columns.model_dump()},
    kinds=("parquet",),
)
def behavior_queries(task: Task) -> None:
    """Samples that show each behavior: what the corpus is searched for."""
    frames = [
        read_reference(task, behavior.queries, f"behaviors.{name}.queries").with_columns(
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


def read_reference(task: Task, path: Path, setting: str) -> pl.DataFrame:
    """Samples of a small file that the settings name, such as a behavior's queries.

    Raises:
        DataError: the file is missing or has no valid row; a bad row in such a hand-picked file
            is an error too, because leaving it out would change what is searched for.
    """
    if not path.is_file():
        raise DataError(f"The file of {setting} does not exist.", where=str(path))
    columns = task.settings.corpus.columns
    samples, bad = task.out(".samples.parquet"), task.out(".bad.parquet")
    wanted = Columns(columns.prompt, columns.response, messages=columns.messages)
    found = ingest(path, path.name, wanted, samples, bad, task.settings.corpus.max_characters)
    rows, reasons = read_samples(samples), pl.read_parquet(bad)
    samples.unlink()
    bad.unlink()
    if found.quarantined:
        first = reasons.row(0, named=True)
        raise DataError(
            f"{found.quarantined} rows of {setting} are bad; the first: {first['reason']}.",
            where=f"{path}, row {first['row']}, field {first['field']}",
            fix="mend or remove those rows",
        )
    if not found.valid:
        raise DataError(f"{setting} has no rows.", where=str(path), fix="add at least one sample")
    return rows
