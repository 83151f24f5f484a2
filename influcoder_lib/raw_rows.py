"""What the readers of raw files share: the columns asked for, a row and a bad row, and what is
wrong with a file as a whole."""

import codecs
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from influcoder_lib.errors import DataError

EXCERPT = 200
ROW_BYTES = 32
"""What a row counts for in `check_growth`, however little it holds."""

# What a file unpacks to may be this many bytes, and beyond, so many times what is packed: text
# seldom shrinks to a tenth, and nothing that gzip packs to less than a thousandth.
_HARMLESS = 1 << 23
_MOST_GROWTH = 500
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_written = reprlib.Repr()
_written.maxdict = _written.maxlist = _written.maxstring = _written.maxother = EXCERPT


@dataclass(frozen=True)
class Row:
    """One row of a raw file: its number (from 1) and the values by column name."""

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """One row that is no sample: where it is, which field is wrong, and why.

    Rows are counted by `reason`, so it is one of a few; what only this row has, such as a length,
    begins the `excerpt`.
    """

    number: int
    field: str
    reason: str
    excerpt: str


def excerpt(value: object, note: str = "") -> str:
    """The first `EXCERPT` characters of a value, with what cannot be stored as text escaped; a note
    on it comes before."""
    if isinstance(value, bytes):
        text = value[:EXCERPT].decode("utf-8", "backslashreplace")
    elif isinstance(value, str):
        text = value[:EXCERPT].encode("utf-8", "backslashreplace").decode()
    else:
        text = "" if value is None else _written.repr(value)
    told = f"{note}: {text}" if note else text
    return told.replace("\0", "\\x00")[:EXCERPT]


def first_line(error: Exception) -> str:
    """The first line of what an error says, at most `EXCERPT` characters."""
    return str(error).strip().split("\n", 1)[0][:EXCERPT]


def type_name(value: object) -> str:
    """What a value is, in the words of JSON."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    names |= {list: "a list", dict: "an object", bytes: "binary", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")


class Asked(NamedTuple):
    """Columns that are asked of a file: one without any of the needed is refused, the optional may
    be missing."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def among(self, header: Sequence[str], name: str) -> tuple[str, ...]:
        """Those that the header of a file has.

        Raises:
            DataError: a needed one is missing, or one is there more than once.
        """
        for column in self.needed:
            if column not in header:
                raise missing(name, column, header)
        asked = dict.fromkeys((*self.needed, *self.optional))
        found = tuple(column for column in asked if column in header)
        for column in found:
            if header.count(column) > 1:
                raise twice(name, column)
        return found


def missing(name: str, column: str, found: Sequence[str]) -> DataError:
    """The error that a file does not have a column; the first of those `found` are listed."""
    return DataError(
        f"The file has no column {column!r}.",
        where=f"file {name}",
        allowed=f"its columns: {', '.join(map(excerpt, found[:32])) or 'none'}",
        fix="map the column under corpus.columns in the settings, or add it to the file",
    )


def twice(name: str, column: str) -> DataError:
    """The error that a column is there more than once."""
    return DataError(f"The file has the column {column!r} more than once.", where=f"file {name}")


def check_encoding(name: str, head: bytes) -> None:
    """Stop a file whose first bytes say that it is not UTF-8.

    Raises:
        DataError: they say so.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            raise DataError(
                f"The file is {encoding}, not UTF-8.",
                where=f"file {name}",
                fix="convert it to UTF-8",
            )


def check_growth(name: str, unpacked: int, packed: int) -> None:
    """Stop a file whose `packed` bytes became so many: it was made to fill memory or disk.

    Raises:
        DataError: they are more than text can unpack to.
    """
    if unpacked > _HARMLESS and unpacked > _MOST_GROWTH * packed:
        raise DataError(
            f"The file grows to more than {_MOST_GROWTH} times its size when it is unpacked.",
            where=f"file {name}",
            fix="look at what it holds; if it is meant to be so, write it anew, packed less",
        )
