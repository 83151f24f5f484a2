"""The rows of a csv file with a header, one in memory at a time."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from influcoder_lib.errors import DataError
from influcoder_lib.raw_rows import EXCERPT, Asked, BadRow, Row, check_encoding, excerpt

_HEADER_LIMIT = 1 << 20


def read_csv(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Rows of a csv file with a header; the numbers count data rows.

    Raises:
        DataError: the file is UTF-16 or UTF-32, its header cannot be read, lacks a needed column or
            has one twice, or a row is longer than `limit`.
    """
    if csv.field_size_limit() < limit:
        csv.field_size_limit(limit)
    # surrogateescape keeps undecodable bytes in their row, so that only that row is refused.
    with path.open("rb") as raw:
        check_encoding(name, raw.peek(4))
        stream = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        feed = _Feed(stream, name)
        reader = csv.reader(feed, strict=True)
        header = _header(reader, name)
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
                yield BadRow(number, "", _reason(error), excerpt(feed.start))
                continue
            if not fields:
                number -= 1
            elif len(fields) != len(header):
                reason = "the row has more or fewer fields than the header"
                counts = f"{len(fields)} fields, not {len(header)}"
                yield BadRow(number, "", reason, excerpt(",".join(fields), counts))
            else:
                yield Row(number, {column: fields[at] for column, at in places.items()})


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        return next(reader, [])
    except csv.Error as error:
        raise DataError(f"The header cannot be read: {error}.", where=f"file {name}") from error


def _reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quoted field never closes: a quote is missing, or the file is cut off"
    return f"the row is not valid csv ({error})"


class _Feed:
    """Lines of a text stream for the csv parser, with a bound on what one row may take; the first
    row, the header, is bound more tightly."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self.held = 0
        self.start = ""
        self.what, self.limit = "header", _HEADER_LIMIT
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
