"""Parquet tables that need not fit into memory: written and read a block of rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from influcoder_lib.atomic import whole
from influcoder_lib.errors import StoreError

# A row group is written when it holds this many rows, or this many bytes.
GROUP_ROWS = 8192
GROUP_BYTES = 1 << 22


class TableWriter:
    """A table being written, see `writing`; its columns are those of the first block."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._held: list[pl.DataFrame] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, block: pl.DataFrame) -> None:
        """Append rows; a table without rows needs one empty block, for its columns."""
        if not len(block) and (self._held or self._writer):
            return
        self.rows += len(block)
        self._held.append(block)
        held_bytes = sum(each.estimated_size() for each in self._held)
        if sum(map(len, self._held)) >= GROUP_ROWS or held_bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is held back, and the end of the file."""
        if self._held:
            self._flush()
        self.let_go()

    def let_go(self) -> None:
        """Close the file, whether or not all of it is written."""
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        group = _to_arrow(pl.concat(self._held))
        self._held.clear()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, group.schema, compression="zstd")
        if len(group):
            self._writer.write_table(group, row_group_size=len(group))


@contextmanager
def writing(path: Path) -> Iterator[TableWriter]:
    """A parquet table that takes its name only when all of it is written; equal blocks give equal
    bytes.

    Raises:
        StoreError: the table cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            table = TableWriter(part)
            try:
                yield table
                table.finish()
            finally:
                with suppress(OSError):
                    table.let_go()
    except OSError as error:
        raise StoreError(
            f"A table cannot be written ({error.strerror or error}).",
            where=f"file {path}",
            fix="make the folder writable, free some space, or choose another one",
        ) from error


def load_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All of a table, or some columns of it. A path is a name and no pattern: folders may be called
    a[1]."""
    return pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)


def scan_table(paths: Path | Sequence[Path], **options: Any) -> pl.LazyFrame:
    """The same of one table or several, read when it is asked for; options are those of polars."""
    return pl.scan_parquet(paths if isinstance(paths, Path) else list(paths), glob=False, **options)


def read_blocks(path: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The row groups of a table in order; of a table without rows, one empty block."""
    names = None if columns is None else list(columns)
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield _to_polars(file.read_row_group(group, names))
        if file.num_row_groups == 0:
            yield _to_polars(file.read(names))


class TableReader:
    """A table read from front to back, as many rows at a time as are asked for."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._blocks = read_blocks(path, columns)
        self._held = next(self._blocks)

    def take(self, rows: int) -> pl.DataFrame:
        """The next rows; fewer where the table ends."""
        while len(self._held) < rows and (block := next(self._blocks, None)) is not None:
            self._held = pl.concat([self._held, block])
        taken, self._held = self._held.head(rows), self._held.slice(rows)
        return taken


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _to_polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
