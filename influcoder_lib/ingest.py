"""One shard's raw file to its table of valid samples and its table of quarantined rows.

What makes a row a sample is decided here; how a file's rows are read is the business of `readers`.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from influcoder_lib.id_table import IdTable, keys_of
from influcoder_lib.raw_rows import Asked, BadRow, Row, excerpt, type_name
from influcoder_lib.readers import read_rows
from influcoder_lib.samples import QUARANTINE_SCHEMA, SAMPLE_SCHEMA, read_samples
from influcoder_lib.tables import GROUP_BYTES, GROUP_ROWS, load_table, writing

ROW_LIMIT = 1 << 24
"""Bytes, or characters of csv, that a row may have beside its texts, in what nobody asks for."""

# A line of jsonl holds two texts, and may escape a character as two halves such as \ud83d\ude00.
_MOST_BYTES = 2 * 12


@dataclass(frozen=True)
class Columns:
    """Names of a raw file's columns; `messages`, if set, replaces `prompt` and `response`."""

    prompt: str = "prompt"
    response: str = "response"
    label: str | None = None
    source: str | None = None
    messages: str | None = None

    def asked(self) -> Asked:
        """The columns that a file must have, and those that it may have."""
        text = (self.messages,) if self.messages else (self.prompt, self.response)
        return Asked(text, tuple(name for name in (self.label, self.source) if name))


@dataclass(frozen=True)
class Ingested:
    """Rows of a raw file: valid + quarantined = all of them; and which of the columns for label and
    source it does not have."""

    valid: int
    quarantined: int
    without: tuple[str, ...]


def ingest(
    path: Path,
    name: str,
    columns: Columns,
    samples_out: Path,
    quarantine_out: Path,
    max_characters: int,
) -> Ingested:
    """Read a raw file and write its samples and its quarantined rows as parquet.

    The raw file and the two tables are never held in memory; what grows with the file is one
    16-byte identity and row number a sample, to find duplicates. Equal files give equal bytes.
    The quarantine takes its name first: where the samples are, both are written to their end.

    A row is a sample if its prompt and response are text without NUL characters, each of at most
    `max_characters`, the response is not blank, label and source are text, a number, a boolean or
    missing (a blank one, NaN and a column that the file lacks count as missing), and no earlier row
    has the same prompt and response. A number or boolean is stored as text: "1" for 1 and for 1.0,
    "true" for True.

    Args:
        path: the raw file (.jsonl, .jsonl.gz, .csv or .parquet).
        name: the shard's relative path, written in the column `file` and in errors.
        columns: which column holds what.
        samples_out: where the table of `SAMPLE_SCHEMA` goes.
        quarantine_out: where the table of `QUARANTINE_SCHEMA` goes.
        max_characters: characters that a prompt or a response may have.

    Raises:
        DataError: the file as a whole cannot be used (see `readers.read_rows`).
        StoreError: a table cannot be written.
    """
    limit = ROW_LIMIT + _MOST_BYTES * max_characters
    asked = columns.asked()
    without = set(asked.optional)
    rows = _noting(read_rows(path, name, asked, limit), without)
    checked = (
        _check(row, columns, max_characters) if isinstance(row, Row) else row for row in rows
    )
    seen = IdTable()
    with writing(samples_out) as samples, writing(quarantine_out) as quarantine:
        for block in _blocks(checked):
            valid, bad = _tell_apart(block, seen)
            samples.add(_table([(*each[:5], name, each.number) for each in valid], SAMPLE_SCHEMA))
            found = [(name, each.number, each.field, each.reason, each.excerpt) for each in bad]
            quarantine.add(_table(found, QUARANTINE_SCHEMA))
        left = tuple(name for name in dict.fromkeys(asked.optional) if name in without)
        return Ingested(valid=samples.rows, quarantined=quarantine.rows, without=left)


def read_picked(path: Path, what: str, columns: Columns, max_characters: int) -> pl.DataFrame:
    """The table of samples of a small, hand-picked file, such as a behavior's queries.

    `what` names it in errors, such as the setting that it comes from.

    Raises:
        DataError: the file is missing, cannot be read or has no row; a bad row is an error too,
            because leaving it out would change what was picked.
    """
    if not path.is_file():
        raise DataError(f"The file of {what} does not exist.", where=f"file {path}")
    with tempfile.TemporaryDirectory() as folder:
        samples, bad = Path(folder, "samples.parquet"), Path(folder, "bad.parquet")
        found = ingest(path, path.name, columns, samples, bad, max_characters)
        rows, reasons = read_samples(samples), load_table(bad)
    if found.quarantined:
        first = reasons.row(0, named=True)
        raise DataError(
            f"{found.quarantined} rows of {what} are bad; the first: {first['reason']}.",
            where=f"file {path}, row {first['row']}, field {first['field']}",
            fix="mend or remove those rows",
        )
    if not found.valid:
        raise DataError(f"{what} has no rows.", where=f"file {path}", fix="add at least one sample")
    return rows


def _noting(rows: Iterable[Row | BadRow], without: set[str]) -> Iterator[Row | BadRow]:
    """The same rows; the columns that one of them has are taken out of `without`."""
    for row in rows:
        if without and isinstance(row, Row):
            without.difference_update(row.values)
        yield row


class _Valid(NamedTuple):
    sample_id: str
    prompt: str
    response: str
    label: str | None
    source: str | None
    number: int


class _Bad(Exception):  # noqa: N818 - not an error: it carries why one row is refused
    """Why a row is no sample; caught where the row is judged."""

    def __init__(self, field: str, reason: str, value: object, note: str = "") -> None:
        super().__init__(reason)
        self.field, self.reason, self.value, self.note = field, reason, value, note


def _check(row: Row, columns: Columns, limit: int) -> _Valid | BadRow:
    """The row as a sample, or why it is none."""
    try:
        if columns.messages:
            field = columns.messages
            prompt, response = _chat(field, row.values.get(field))
            _check_text(field, prompt, limit)
            _check_text(field, response, limit)
        else:
            prompt = _text(row.values, columns.prompt)
            response = _text(row.values, columns.response)
            field = columns.response
            _check_text(columns.prompt, prompt, limit)
            _check_text(field, response, limit)
        if not response.strip():
            raise _Bad(field, "the response is blank", response)
        label = _optional_name(row.values, columns.label, limit)
        source = _optional_name(row.values, columns.source, limit)
    except _Bad as bad:
        return BadRow(row.number, bad.field, bad.reason, excerpt(bad.value, bad.note))
    identity = fingerprint.sample_id(prompt, response)
    return _Valid(identity, prompt, response, label, source, row.number)


def _blocks(checked: Iterable[_Valid | BadRow]) -> Iterator[list[_Valid | BadRow]]:
    """The rows in blocks that fit into memory."""
    block: list[_Valid | BadRow] = []
    characters = 0
    for each in checked:
        block.append(each)
        if isinstance(each, _Valid):
            characters += sum(len(text) for text in each[1:5] if text)
        if len(block) >= GROUP_ROWS or characters >= GROUP_BYTES:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _tell_apart(block: list[_Valid | BadRow], seen: IdTable) -> tuple[list[_Valid], list[BadRow]]:
    """The block's samples and its bad rows; one whose twin came earlier is bad."""
    bad = [each for each in block if isinstance(each, BadRow)]
    valid = [each for each in block if isinstance(each, _Valid)]
    keys = keys_of([each.sample_id for each in valid])
    numbers = np.array([each.number for each in valid], dtype=np.int64)
    new = []
    for each, first in zip(valid, seen.setdefault(keys, numbers).tolist(), strict=True):
        if first == each.number:
            new.append(each)
        else:
            bad.append(_twin(each, first))
    return new, sorted(bad, key=lambda each: each.number)


def _twin(valid: _Valid, first: int) -> BadRow:
    reason = "the same prompt and response as an earlier row"
    return BadRow(valid.number, "", reason, excerpt(valid.response, f"row {first}"))


def _table(rows: list[tuple[Any, ...]], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


def _text(values: Mapping[str, Any], field: str) -> str:
    if field not in values:
        raise _Bad(field, "the field is missing", None)
    value = values[field]
    if isinstance(value, bytes):
        raise _Bad(field, _bytes_reason(value), value)
    if not isinstance(value, str):
        raise _Bad(field, f"the field is {type_name(value)}, not a string", value)
    return value


def _bytes_reason(value: bytes) -> str:
    try:
        value.decode()
    except UnicodeDecodeError:
        return "the field is not valid UTF-8"
    return "the field is binary, not a string"


def _check_text(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        reason = f"the text has more than the {limit} characters allowed"
        raise _Bad(field, reason, text, f"{len(text)} characters")
    if "\0" in text:
        raise _Bad(field, "the text holds a NUL character", text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # The csv reader keeps an undecodable byte as one of these code points.
        if 0xDC80 <= ord(text[error.start]) <= 0xDCFF:
            raise _Bad(field, "the field is not valid UTF-8", text) from None
        raise _Bad(field, "the text holds half of a surrogate pair", text) from None


def _optional_name(values: Mapping[str, Any], field: str | None, limit: int) -> str | None:
    """A label or a source as text: labels are often 0 and 1, in a table with gaps 0.0 and 1.0."""
    if field is None:
        return None
    match values.get(field):
        case None:
            return None
        case bool(value):
            return str(value).lower()
        case int(value):
            return str(value)
        case float(value):
            if math.isnan(value):
                return None
            return str(int(value) if value.is_integer() else value)
        case Decimal() as value:
            return f"{value.normalize():f}"
    text = _text(values, field)
    _check_text(field, text, limit)
    return text if text.strip() else None


def chat_prompt(turns: Sequence[tuple[str, str]]) -> str:
    """The prompt made of the (role, content) turns before the response.

    A single user turn is its content; else "role: content" blocks with a blank line between.
    """
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def _chat(field: str, value: object) -> tuple[str, str]:
    """(prompt, response) of a list of messages; the last one, the assistant's, responds."""
    turns = _turns(field, value)
    role, response = turns[-1]
    if role != "assistant":
        reason = "the last message is not by 'assistant'"
        raise _Bad(field, reason, value, f"by {excerpt(role)!r}")
    return chat_prompt(turns[:-1]), response


def _turns(field: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, str):
        # A csv cell can hold a list only as JSON.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _Bad(field, "the messages are text that is not JSON", value) from None
    if not isinstance(value, list):
        raise _Bad(field, f"the messages are {type_name(value)}, not a list", value)
    if not value:
        raise _Bad(field, "there are no messages", value)
    turns = []
    for position, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            reason = f"a message is {type_name(message)}, not an object"
            raise _Bad(field, reason, value, f"message {position}")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                kind = type_name(message.get(key))
                reason = f"the {key} of a message is {kind}, not a string"
                raise _Bad(field, reason, value, f"message {position}")
        turns.append((message["role"], message["content"]))
    return turns
