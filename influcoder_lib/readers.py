"""Rows of raw files: streaming readers of jsonl, jsonl.gz, csv and parquet.

A bad row never stops a file: it is told with its number, field and reason. A file that cannot be
trusted as a whole (cut off, empty, a column missing, grown beyond measure when it is unpacked) is
an error.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from influcoder_lib.errors import DataError
from influcoder_lib.parquet_rows import read_parquet
from influcoder_lib.raw_rows import (
    EXCERPT,
    ROW_BYTES,
    Asked,
    BadRow,
    Row,
    check_encoding,
    check_growth,
    excerpt,
    missing,
    type_name,
)
from influcoder_lib.samples import SUFFIXES

_CSV_HEADER_LIMIT = 1 << 20
_SKIP = 1 << 20


def read_rows(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Every row of a raw file in order; `values` holds at least those of the columns that exist.

    Args:
        path: the file; its suffix decides the format.
        name: what errors call the file.
        asked: the columns.
        limit: bytes that a jsonl line may have, of which a longer one becomes a `BadRow` unread;
            and characters that a csv row may have.

    Raises:
        DataError: the file has an unknown suffix, is empty, cut off, damaged or unreadable, holds
            no rows, is not UTF-8 but UTF-16 or UTF-32, grows beyond all measure when it is
            unpacked, none of its rows has one of the needed columns, or a row of csv is longer than
            `limit`: a quote that never closes is the likely cause.
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
        for row in _READERS[suffix](path, name, asked, limit):
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
    except (pa.ArrowException, OSError) as error:
        # What arrow says of damaged bytes is an OSError too, but none of the system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"The file cannot be read ({error.strerror}).", where=where) from error
        raise DataError(
            f"The file is no intact parquet file ({_first_line(error)}).",
            where=where,
            fix="copy it again; a parquet file that was cut off cannot be read",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:EXCERPT]


# --- jsonl ---------------------------------------------------------------------------------------


def _read_jsonl(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    with path.open("rb") as stream:
        check_encoding(name, stream.peek(4))
        yield from _json_rows(stream.readline, name, asked.needed, limit)


def _read_jsonl_gz(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
        length = 0

        def read_line(most: int) -> bytes:
            nonlocal length
            line = stream.readline(most)
            length += len(line) + ROW_BYTES
            check_growth(name, length, packed.tell())
            return line

        check_encoding(name, stream.peek(4))
        yield from _json_rows(read_line, name, asked.needed, limit)


def _json_rows(
    read_line: Callable[[int], bytes], name: str, columns: tuple[str, ...], limit: int
) -> Iterator[Row | BadRow]:
    absent = set(columns)
    found: dict[str, None] = {}
    objects = 0
    for number, line, length in _lines(read_line, limit):
        row = _json_row(number, line, length, limit)
        if isinstance(row, Row):
            objects += 1
            absent.difference_update(row.values)
            if absent:
                found.update(dict.fromkeys(list(row.values)[:32]))
        yield row
    if objects and absent:
        raise missing(name, min(absent, key=columns.index), list(found))


def _json_row(number: int, line: bytes, length: int, limit: int) -> Row | BadRow:
    if length > limit:
        reason = f"the line has more than the {limit} bytes that are read"
        return BadRow(number, "", reason, excerpt(line, f"{length} bytes"))
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1}"
        return BadRow(number, "", "the line is not valid UTF-8", excerpt(line, where))
    except json.JSONDecodeError as error:
        reason = f"the line is not valid JSON ({error.msg})"
        return BadRow(number, "", reason, excerpt(line, f"column {error.colno}"))
    except _TwiceError as error:
        return BadRow(number, "", "a key is there more than once", excerpt(line, str(error)))
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and very deep nesting are JSON, but not to this parser.
        reason = "the line is not JSON that can be read"
        return BadRow(number, "", reason, excerpt(line, _first_line(error)))
    if not isinstance(value, dict):
        kind = type_name(value)
        return BadRow(number, "", f"the line is {kind}, not a JSON object", excerpt(line))
    return Row(number, value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that is there twice, which value is meant is nobody's to guess."""
    values = dict(pairs)
    if len(values) < len(pairs):
        left = [key for key, _ in pairs]
        twice = next(key for key in values if left.count(key) > 1)
        raise _TwiceError(f"the key {excerpt(twice)!r}")
    return values


class _TwiceError(ValueError):
    """Which key an object has more than once."""


def _lines(read_line: Callable[[int], bytes], limit: int) -> Iterator[tuple[int, bytes, int]]:
    """(line number, bytes, length) of every line that is not blank.

    Of a line longer than `limit` bytes only the start is kept, and the length counts all of it.
    """
    number = 0
    most = limit + 2 + len(codecs.BOM_UTF8)
    while line := read_line(most):
        number += 1
        ended = line.endswith(b"\n") or len(line) < most
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        content = line.rstrip(b"\r\n")
        if ended and len(content) <= limit:
            if content.strip():
                yield number, content, len(content)
            continue
        length = len(content)
        while not ended and (more := read_line(_SKIP)):
            length += len(more.rstrip(b"\r\n"))
            ended = more.endswith(b"\n")
        yield number, content[: 4 * EXCERPT], length


# --- csv -----------------------------------------------------------------------------------------


def _read_csv(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Rows of a csv file with a header; the numbers count data rows."""
    if csv.field_size_limit() < limit:
        csv.field_size_limit(limit)
    # surrogateescape keeps undecodable bytes in their row, so that only that row is refused.
    with path.open("rb") as raw:
        check_encoding(name, raw.peek(4))
        stream = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        feed = _Feed(stream, name)
        reader = csv.reader(feed, strict=True)
        header = _csv_header(reader, name)
        places = {column: header.index(column) for column in asked.among(header, name)}
        feed.what, feed.limit = "row", limit
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
                reason = "the row has more or fewer fields than the header"
                counts = f"{len(fields)} fields, not {len(header)}"
                yield BadRow(number, "", reason, excerpt(",".join(fields), counts))
            else:
                yield Row(number, {column: fields[at] for column, at in places.items()})


def _csv_header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        return next(reader, [])
    except csv.Error as error:
        raise DataError(f"The header cannot be read: {error}.", where=f"file {name}") from error


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quoted field never closes: a quote is missing, or the file is cut off"
    return f"the row is not valid csv ({error})"


class _Feed:
    """Lines of a text stream for the csv parser, with a bound on what one row may take; the first
    row, the header, is bound more tightly."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self.held = 0
        self.start = ""
        self.what, self.limit = "header", _CSV_HEADER_LIMIT
        self._stream, self._name = stream, name

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self.limit + 1)
        if not line:
            raise StopIteration
        if self.held == 0:
            self.start = line[:EXCERPT]
        self.held += len(line)
        if self.held > self.limit:
            raise DataError(
                f"A {self.what} is longer than {self.limit} characters.",
                where=f"file {self._name}, the {self.what} that starts "
                f"{excerpt(self.start[:60])!r}",
                fix="look for a quote that never closes",
            )
        return line


_READERS: dict[str, Callable[[Path, str, Asked, int], Iterator[Row | BadRow]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".csv": _read_csv,
    ".parquet": read_parquet,
}
