"""Raw files to samples: streaming readers of jsonl, jsonl.gz, csv and parquet, and quarantine.

A bad row never stops a file: it goes to quarantine with its number, field and reason. A file that
cannot be trusted as a whole (cut off, empty, a column missing) is an error.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from influcoder_lib.errors import DataError
from influcoder_lib.samples import SUFFIXES

# One csv row may hold this many characters; beyond, a quote that never closes is the likely cause.
CSV_ROW_LIMIT = 1 << 26
EXCERPT = 200

_BOM = b"\xef\xbb\xbf"
_SKIP = 1 << 20
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class Row:
    """One row of a raw file: its number (from 1) and the values by column name."""

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """One row that is no sample: where it is, which field is wrong, and why."""

    number: int
    field: str
    reason: str
    excerpt: str


def excerpt(value: object) -> str:
    """The first `EXCERPT` characters of a value, with what cannot be stored as text escaped."""
    if isinstance(value, bytes):
        text = value[:EXCERPT].decode("utf-8", "backslashreplace")
    elif isinstance(value, str):
        text = value[:EXCERPT].encode("utf-8", "backslashreplace").decode()
    else:
        text = "" if value is None else repr(value)
    return text.replace("\0", "\\x00")[:EXCERPT]


def read_rows(
    path: Path, name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    """Every row of a raw file in order; `values` holds at least those of `columns` that exist.

    Args:
        path: the file; its suffix decides the format.
        name: what errors call the file.
        columns: the columns that are needed.
        limit: bytes that a jsonl line may have; a longer one becomes a `BadRow` unread.

    Raises:
        DataError: the file has an unknown suffix, is empty, cut off, damaged or unreadable, holds
            no rows, or none of its rows has one of the columns.
    """
    lower = path.name.lower()
    suffix = next((ending for ending in SUFFIXES if lower.endswith(ending)), None)
    if suffix is None:
        raise DataError(
            "The format of the file is not known.",
            where=f"file {name}",
            allowed=f"names that end in {', '.join(SUFFIXES)}",
        )
    count = 0
    with _file_errors(name):
        if path.stat().st_size == 0:
            raise DataError("The file is empty.", where=f"file {name}", fix="remove or refill it")
        for row in _READERS[suffix](path, name, columns, limit):
            count += 1
            yield row
    if count == 0:
        raise DataError("The file holds no rows.", where=f"file {name}", fix="remove or refill it")


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """Turn what a damaged or unreadable file raises into an error that names it."""
    where = f"file {name}"
    try:
        yield
    except EOFError as error:
        raise DataError(
            "The gzip file is cut off: its end is missing.", where=where, fix="copy it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"The file is no intact gzip file ({error}).", where=where, fix="copy it again"
        ) from error
    except pa.ArrowException as error:
        raise DataError(
            f"The file is no intact parquet file ({_first_line(error)}).",
            where=where,
            fix="copy it again; a parquet file that was cut off cannot be read",
        ) from error
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise DataError(f"The file cannot be read ({reason}).", where=where) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:EXCERPT]


def _missing(name: str, column: str, found: list[str]) -> DataError:
    return DataError(
        f"The file has no column {column!r}.",
        where=f"file {name}",
        allowed=f"its columns: {', '.join(found) or 'none'}",
        fix="map the column under corpus.columns in the settings, or add it to the file",
    )


# --- jsonl ---------------------------------------------------------------------------------------


def _read_jsonl(
    path: Path, name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    with path.open("rb") as stream:
        yield from _json_rows(stream, name, columns, limit)


def _read_jsonl_gz(
    path: Path, name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    with gzip.open(path, "rb") as stream:
        yield from _json_rows(cast(IO[bytes], stream), name, columns, limit)


def _json_rows(
    stream: IO[bytes], name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    absent = set(columns)
    found: dict[str, None] = {}
    objects = 0
    for number, line, length in _lines(stream, limit):
        row = _json_row(number, line, length, limit)
        if isinstance(row, Row):
            objects += 1
            absent.difference_update(row.values)
            if absent:
                found.update(dict.fromkeys(list(row.values)[:32]))
        yield row
    if objects and absent:
        raise _missing(name, min(absent, key=columns.index), list(found)[:32])


def _json_row(number: int, line: bytes, length: int, limit: int) -> Row | BadRow:
    if length > limit:
        reason = f"the line has {length} bytes, more than the {limit} that are read"
        return BadRow(number, "", reason, excerpt(line))
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"the line is not valid UTF-8 (byte {error.start + 1})"
        return BadRow(number, "", reason, excerpt(line))
    except json.JSONDecodeError as error:
        reason = f"the line is not valid JSON ({error.msg}, column {error.colno})"
        return BadRow(number, "", reason, excerpt(line))
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and very deep nesting are JSON, but not to this parser.
        reason = f"the line is not JSON that can be read ({_first_line(error)})"
        return BadRow(number, "", reason, excerpt(line))
    if not isinstance(value, dict):
        kind = type_name(value)
        return BadRow(number, "", f"the line is {kind}, not a JSON object", excerpt(line))
    return Row(number, value)


def _lines(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes, int]]:
    """(line number, bytes, length) of every line that is not blank.

    Of a line longer than `limit` bytes only the start is kept, and the length counts all of it.
    """
    number = 0
    while line := stream.readline(limit + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        content = line.rstrip(b"\r\n")
        ended = line.endswith(b"\n") or len(line) < limit + 2
        if ended and len(content) <= limit:
            if content.strip():
                yield number, content, len(content)
            continue
        length = len(content)
        while not ended and (more := stream.readline(_SKIP)):
            length += len(more.rstrip(b"\r\n"))
            ended = more.endswith(b"\n")
        yield number, content[: 4 * EXCERPT], length


# --- csv -----------------------------------------------------------------------------------------


def _read_csv(
    path: Path, name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    """Rows of a csv file with a header; the numbers count data rows."""
    most = max(limit, CSV_ROW_LIMIT)
    if csv.field_size_limit() < most:
        csv.field_size_limit(most)
    # surrogateescape keeps undecodable bytes in their row, so that only that row is refused.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        feed = _Feed(stream, name, most)
        reader = csv.reader(feed, strict=True)
        header = _csv_header(reader, name, columns)
        number = 0
        while True:
            feed.held = 0
            number += 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(number, "", _csv_reason(error), excerpt(feed.start))
                continue
            if not fields:
                number -= 1
            elif len(fields) != len(header):
                reason = f"the row has {len(fields)} fields, the header has {len(header)}"
                yield BadRow(number, "", reason, excerpt(",".join(fields)))
            else:
                yield Row(number, dict(zip(header, fields, strict=True)))


def _csv_header(reader: Iterator[list[str]], name: str, columns: tuple[str, ...]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise DataError(f"The header cannot be read: {error}.", where=f"file {name}") from error
    for column in columns:
        if column not in header:
            raise _missing(name, column, [excerpt(field) for field in header[:32]])
        if header.count(column) > 1:
            raise DataError(
                f"The header names the column {column!r} more than once.", where=f"file {name}"
            )
    return header


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quoted field never closes: a quote is missing, or the file is cut off"
    return f"the row is not valid csv ({error})"


class _Feed:
    """Lines of a text stream for the csv parser, with a bound on what one row may take."""

    def __init__(self, stream: IO[str], name: str, limit: int) -> None:
        self.held = 0
        self.start = ""
        self._stream, self._name, self._limit = stream, name, limit

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._limit + 1)
        if not line:
            raise StopIteration
        if self.held == 0:
            self.start = line[:EXCERPT]
        self.held += len(line)
        if self.held > self._limit:
            raise DataError(
                f"A row is longer than {self._limit} characters.",
                where=f"file {self._name}, the row that starts {excerpt(self.start[:60])!r}",
                fix="look for a quote that never closes",
            )
        return line


# --- parquet -------------------------------------------------------------------------------------


def _read_parquet(
    path: Path, name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        for column in columns:
            if column not in names:
                raise _missing(name, column, names[:32])
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns)):
            cells = [_cells(batch.column(column)) for column in columns]
            for values in zip(*cells, strict=True):
                number += 1
                yield Row(number, dict(zip(columns, values, strict=True)))


def _cells(column: pa.Array) -> list[Any]:
    """Python values of a column; a text that is not UTF-8 stays bytes."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object)


def type_name(value: object) -> str:
    """What a value is, in the words of JSON."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    names |= {list: "a list", dict: "an object", bytes: "binary", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")


_READERS: dict[str, Callable[[Path, str, tuple[str, ...], int], Iterator[Row | BadRow]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
