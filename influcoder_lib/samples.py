"""What a sample is, and which files of a folder are shards.

The tables of valid samples and of quarantined rows have their schemas here; `ingest` fills them
from raw files.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from influcoder_lib.errors import DataError
from influcoder_lib.tables import read_blocks

SAMPLE_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String(),
        "prompt": pl.String(),
        "response": pl.String(),
        "label": pl.String(),
        "source": pl.String(),
        "file": pl.String(),
        "row": pl.Int64(),
    }
)
QUARANTINE_SCHEMA = pl.Schema(
    {
        "file": pl.String(),
        "row": pl.Int64(),
        "field": pl.String(),
        "reason": pl.String(),
        "excerpt": pl.String(),
    }
)
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")

_KEY = re.compile(r"[a-z0-9_.-]+")


@dataclass(frozen=True)
class Sample:
    """One training example; `sample_id` is its content's fingerprint."""

    sample_id: str
    prompt: str
    response: str


def to_samples(frame: pl.DataFrame) -> list[Sample]:
    """The rows of a sample table as samples, in the table's order.

    Raises:
        DataError: a column is missing, or a value is null.
    """
    columns = ("sample_id", "prompt", "response")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"The table has no column {missing[0]!r}.", where=f"columns {frame.columns}"
        )
    table = frame.select(columns)
    empty = [name for name in columns if table[name].null_count()]
    if empty:
        raise DataError(f"The column {empty[0]!r} holds nulls, so its rows are no samples.")
    return [Sample(*row) for row in table.iter_rows()]


def read_samples(path: Path) -> pl.DataFrame:
    """The table of valid samples that `ingest` wrote (columns: `SAMPLE_SCHEMA`), all of it.

    Raises:
        DataError: the file is missing, unreadable, or of another schema.
    """
    return pl.concat(read_sample_blocks(path))


def read_sample_blocks(path: Path) -> Iterator[pl.DataFrame]:
    """The same table block by block, at least one, so that its texts need not fit into memory.

    Raises:
        DataError: as `read_samples`, when the block in question is asked for.
    """
    try:
        for block in read_blocks(path):
            if block.schema != SAMPLE_SCHEMA:
                raise DataError(
                    "The file is no sample table.",
                    where=f"file {path}, columns {dict(block.schema)}",
                    allowed=f"columns {dict(SAMPLE_SCHEMA)}",
                )
            yield block
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            "The sample table cannot be read.",
            where=f"file {path}: {error}",
            fix="materialise the corpus shard again",
        ) from error


def partition_key(relative: str) -> str:
    """Name of a shard: its path relative to the corpus, lower case, "/" written ".".

    Raises:
        DataError: the path holds a character that Dagster's UI or a file system may not take.
    """
    key = relative.lower().replace("/", ".")
    if not _KEY.fullmatch(key):
        odd = sorted(set(re.sub(r"[a-z0-9_.-]", "", key)))
        raise DataError(
            f"The name of the shard holds {', '.join(map(repr, odd)) or 'nothing'}.",
            where=f"file {relative}",
            allowed="letters a to z, digits, '_', '.', '-' and '/' between folders",
            fix="rename the file",
        )
    return key


def find_shards(folder: Path) -> dict[str, Path]:
    """Every shard below a folder by partition key, in the order of the keys.

    A shard ends in one of `SUFFIXES` (in any case); other files, and hidden files and folders, are
    none. `folder` may also be one shard's own file.

    Raises:
        DataError: the folder is missing or unreadable, a link leaves it or leads nowhere, a name
            makes no partition key, or two names make the same one.
    """
    if folder.is_file():
        return {partition_key(folder.name): folder}
    if not folder.is_dir():
        raise DataError(
            "The corpus folder does not exist.",
            where=f"folder {folder}",
            fix="create it, or set corpus.path",
        )
    shards: dict[str, Path] = {}
    for path in _visible_files(folder):
        if not path.name.lower().endswith(SUFFIXES):
            continue
        relative = path.relative_to(folder).as_posix()
        key = partition_key(relative)
        if key in shards:
            raise DataError(
                f"Two files make the same partition key {key!r}.",
                where=f"files {shards[key].relative_to(folder).as_posix()} and {relative}",
                fix="rename one of them",
            )
        shards[key] = path
    return dict(sorted(shards.items()))


def _visible_files(folder: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, hidden ones left out, links checked."""
    root = folder.resolve()
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            _check_link(Path(parent, name), root)
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            _check_link(path, root)
            yield path


def _check_link(path: Path, root: Path) -> None:
    if not path.is_symlink():
        return
    target = path.resolve()
    if not target.exists():
        raise DataError(
            "A link leads nowhere.", where=f"file {path}, which points to {target}", fix="remove it"
        )
    if not target.is_relative_to(root):
        raise DataError(
            "A link leaves the corpus folder.",
            where=f"file {path}, which points to {target}",
            fix="copy the file into the folder",
        )


def _refuse(error: OSError) -> None:
    raise DataError(
        "A folder of the corpus cannot be read.", where=f"folder {error.filename}: {error.strerror}"
    ) from error
