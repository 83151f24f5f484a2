"""The rows of a file of json lines, packed or not, one line in memory at a time."""

import codecs
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from influcoder_lib.raw_rows import (
    EXCERPT,
    ROW_BYTES,
    Asked,
    BadRow,
    Row,
    check_encoding,
    check_growth,
    excerpt,
    first_line,
    missing,
    type_name,
)

# Of a line that is too long, so many bytes are passed over at a time.
_SKIP = 1 << 20


def read_jsonl(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Rows of a jsonl file, numbered by its lines, of which blank ones are none.

    Raises:
        DataError: the file is UTF-16 or UTF-32, or no row has one of the needed columns.
    """
    with path.open("rb") as stream:
        check_encoding(name, stream.peek(4))
        yield from _json_rows(stream.readline, name, asked.needed, limit)


def read_jsonl_gz(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Rows of a jsonl.gz file, as `read_jsonl` gives them.

    Raises:
        DataError: as `read_jsonl`, or the file grows beyond all measure when it is unpacked.
    """
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
        return BadRow(number, "", reason, excerpt(line, first_line(error)))
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
