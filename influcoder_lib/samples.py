"""What a sample is, and which files of a folder are shards.

The tables of valid samples and of quarantined rows have their schemas here; `ingest` fills them
from raw files.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl
import pyarrow as pa

from influcoder_lib.errors import DataError, shown
from influcoder_lib.tables import read_blocks

Role = Literal["query", "candidate"]
"""Which side a sample is on: influence is what a candidate has on a query."""

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
# A file system takes names of 255 bytes, and a key gets endings such as
# ".json.1f2e3d4c-123456-5b6a7988.part".
_LONGEST_KEY = 200


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
        DataError: the path holds a character that Dagster's UI or a file system may not take, or
            is too long for the names of the files that are made of the shard.
    """
    key = relative.lower().replace("/", ".")
    if not _KEY.fullmatch(key):
        odd = sorted(set(re.sub(r"[a-z0-9_.-]", "", key)))
        raise DataError(
            f"The name of the shard holds {', '.join(map(repr, odd)) or 'nothing'}.",
            where=f"file {shown(relative)}",
            allowed="letters a to z, digits, '_', '.', '-' and '/' between folders",
            fix="rename the file",
        )
    if len(key) > _LONGEST_KEY:
        raise DataError(
            f"The name of the shard has {len(key)} characters.",
            where=f"file {relative}",
            allowed=f"{_LONGEST_KEY} characters, folders included",
            fix="rename the file or its folders",
        )
    return key


class Shards(NamedTuple):
    """What a corpus folder holds: files by partition key, in the order of the keys; by relative
    path what cannot be a shard, and why; and the paths of files with other endings. One of these
    stops none of the others."""

    files: dict[str, Path]
    refused: dict[str, DataError]
    others: list[str]


def find_shards(folder: Path) -> Shards:
    """Every shard below a folder.

    A shard ends in one of `SUFFIXES` (in any case); other files, and hidden files and folders, are
    none. `folder` may also be one shard's own file.

    Refused are a link that leaves the folder, leads nowhere, in a circle or to a folder, what is no
    regular file (a pipe, a device), a name that makes no partition key, and all files whose names
    make the same one.

    Raises:
        DataError: the folder is missing, or it or one below it cannot be read.
    """
    if folder.is_file():
        return Shards({partition_key(folder.name): folder}, {}, [])
    if not folder.is_dir():
        raise DataError(
            "The corpus folder does not exist.",
            where=f"folder {folder}",
            fix="create it, or set corpus.path",
        )
    claims: dict[str, list[Path]] = {}
    refused: dict[str, DataError] = {}
    others: list[str] = []
    for path in _visible(folder):
        try:
            if key := _key_of(path, folder):
                claims.setdefault(key, []).append(path)
            elif not _ends_like_a_shard(path):
                others.append(path.relative_to(folder).as_posix())
        except DataError as error:
            refused[path.relative_to(folder).as_posix()] = error
    for key in [key for key, paths in claims.items() if len(paths) > 1]:
        names = [path.relative_to(folder).as_posix() for path in claims.pop(key)]
        refused |= dict.fromkeys(names, _same_key(key, names))
    return Shards({key: claims[key][0] for key in sorted(claims)}, refused, others)


def _visible(folder: Path) -> Iterator[Path]:
    """Files, and links to folders, below a folder in a fixed order, hidden ones left out."""
    for parent, folders, files in os.walk(folder, onerror=_cannot_read):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*files, *links]):
            if not name.startswith("."):
                yield Path(parent, name)


def _key_of(path: Path, folder: Path) -> str | None:
    """Partition key of a shard; None for a file that is none, or has just vanished.

    Raises:
        DataError: it is refused.
    """
    if path.is_symlink():
        _check_link(path, folder)
    if not _ends_like_a_shard(path):
        return None
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(kind):
        raise DataError(
            "A shard is no regular file, but a pipe, a device or a socket.",
            where=f"file {_told(path, folder)}",
            fix="remove it, or put a file in its place",
        )
    return partition_key(path.relative_to(folder).as_posix())


def _ends_like_a_shard(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _check_link(path: Path, folder: Path) -> None:
    where = f"file {_told(path, folder)}, which points to {shown(str(path.readlink()))}"
    try:
        target = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise DataError(
            f"A link leads nowhere ({error.strerror}).", where=where, fix="remove it"
        ) from error
    if not target.is_relative_to(folder.resolve()):
        raise DataError(
            "A link leaves the corpus folder.",
            where=f"{where}, at {shown(str(target))}",
            fix="copy what it points to into the folder",
        )
    if target.is_dir():
        raise DataError("A link to a folder is not followed.", where=where, fix="remove it")


def _same_key(key: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{len(names)} files make the same partition key {key!r}, and none of them is used.",
        where=f"files {' and '.join(map(shown, names))}",
        fix="rename all but one of them",
    )


def _told(path: Path, folder: Path) -> str:
    return shown(path.relative_to(folder).as_posix())


def _cannot_read(error: OSError) -> None:
    raise DataError(
        "A folder of the corpus cannot be read.", where=f"folder {error.filename}: {error.strerror}"
    ) from error
