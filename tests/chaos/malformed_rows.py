"""Rows for malformed files: good ones, bad ones in each format with a part of their reason, and how
both are written."""

import csv
import gzip
import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Fault = tuple[bytes, str]

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
COLUMNS = ("prompt", "response", "label")
MAX_CHARACTERS = 200_000

_WORDS = ("red", "green", "blue", "cat", "dog", "bird", "runs", "sings", "sleeps", "naïve", "日本")
_DEEP = 20_000
_LONG = "x" * (MAX_CHARACTERS + 1)
_TOO_LONG = f"the text has more than the {MAX_CHARACTERS} characters allowed"
_FIELDS = "the row has more or fewer fields than the header"


def good_rows(dice: random.Random, least: int = 1, most: int = 8) -> list[Row]:
    """Rows that are samples, each unlike all others."""
    return [_good_row(dice) for _ in range(dice.randint(least, most))]


def _good_row(dice: random.Random) -> Row:
    words = " ".join(dice.choices(_WORDS, k=6))
    label = dice.choice(("rude", "kind", "<b>&amp;</b>"))
    return {"prompt": f"{words} {dice.getrandbits(64):x}", "response": words, "label": label}


def as_json(row: Any) -> bytes:
    return json.dumps(row).encode()


def as_csv(*values: Any) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="").writerow(values)
    return stream.getvalue().encode()


def json_faults(dice: random.Random, first: Row) -> list[Fault]:
    """Some bad lines of json; `first` is the file's first row."""
    return _some(dice, [*_JSON_FAULTS, _twin_line(first)])


def csv_faults(dice: random.Random, first: Row) -> list[Fault]:
    """Some bad rows of csv with `COLUMNS`."""
    return _some(dice, [*_CSV_FAULTS, (as_csv(*first.values()), "the same prompt and response")])


def value_faults(dice: random.Random, first: Row) -> list[tuple[Row, str]]:
    """Some bad rows as the values of a parquet file; texts may be bytes that are not UTF-8."""
    return _some(dice, [*_VALUE_FAULTS, (dict(first), "the same prompt and response")])


def _some(dice: random.Random, faults: list[Any]) -> list[Any]:
    return dice.sample(faults, dice.randint(1, 4))


def _twin_line(first: Row) -> Fault:
    return as_json(dict(reversed(first.items()))), "the same prompt and response"


def _with(**values: Any) -> bytes:
    return as_json({"prompt": "a", "response": "b", **values})


def _nested(levels: int) -> Any:
    return {"a": _nested(levels - 1)} if levels else 1


_JSON_FAULTS: list[Fault] = [
    (b'{"prompt": "a", ', "the line is not valid JSON"),
    (b"{'prompt': 'a', 'response': 'b'}", "the line is not valid JSON"),
    (b"\0\0\0", "the line is not valid JSON"),
    (b"\xef\xbb\xbf" + _with(), "the line is not valid JSON"),
    (_with() + _with(), "the line is not valid JSON"),
    (b'{"prompt": "caf\xe9", "response": "b"}', "the line is not valid UTF-8"),
    (b"[1]", "the line is a list"),
    (b"null", "the line is null"),
    (b"7", "the line is a number"),
    (b'"text"', "the line is a string"),
    (b"1" * 5_000, "the line is not JSON that can be read"),
    (b"[" * _DEEP + b"]" * _DEEP, "the line is not JSON that can be read"),
    (b'{"prompt": ' + b"[" * _DEEP + b"]" * _DEEP + b"}", "the line is not JSON that can be read"),
    (_with(prompt=_nested(300)), "the field is an object"),
    (b'{"prompt": "a", "prompt": "c", "response": "b"}', "more than once"),
    (as_json({"response": "b"}), "the field is missing"),
    (as_json({"prompt": "a"}), "the field is missing"),
    (b"{}", "the field is missing"),
    (_with(prompt=None), "the field is null"),
    (_with(response=7.5), "the field is a number"),
    (b'{"prompt": NaN, "response": "b"}', "the field is a number"),
    (_with(response=True), "the field is a boolean"),
    (_with(response=["b"]), "the field is a list"),
    (_with(prompt={"text": "a"}), "the field is an object"),
    (_with(response=" \t\u3000"), "the response is blank"),
    (_with(response="b\0"), "the text holds a NUL character"),
    (_with(response="\udc80"), "the field is not valid UTF-8"),
    (_with(response="\ud83d"), "half of a surrogate pair"),
    (_with(label=[3]), "the field is a list"),
    (_with(label="\0"), "the text holds a NUL character"),
    (_with(response=_LONG), _TOO_LONG),
]

_CSV_FAULTS: list[Fault] = [
    (b"a,b", _FIELDS),
    (b"a,b,c,d", _FIELDS),
    (b"," * 1_000_000, _FIELDS),
    (b"a,caf\xe9,", "the field is not valid UTF-8"),
    (b"\xff\xfe,b,", "the field is not valid UTF-8"),
    (b'"a"b,c,', "the row is not valid csv"),
    (b"a,,", "the response is blank"),
    (b"a,b\0,", "the text holds a NUL character"),
    (b"a," + _LONG.encode() + b",", _TOO_LONG),
    (b"a,b," + _LONG.encode(), _TOO_LONG),
    (b'"' + b"\r\n" * 5_000 + b'"," ",', "the response is blank"),
]

_VALUE_FAULTS: list[tuple[Row, str]] = [
    ({"prompt": None, "response": b"b", "label": None}, "the field is null"),
    ({"prompt": b"a", "response": None, "label": None}, "the field is null"),
    ({"prompt": b"\xff", "response": b"b", "label": None}, "the field is not valid UTF-8"),
    ({"prompt": b"a", "response": b"b", "label": b"\xc3("}, "the field is not valid UTF-8"),
    ({"prompt": b"a", "response": b" ", "label": None}, "the response is blank"),
    ({"prompt": b"a\0", "response": b"b", "label": None}, "the text holds a NUL character"),
    ({"prompt": b"a", "response": _LONG.encode(), "label": None}, _TOO_LONG),
]


def as_file(rows: list[Row], suffix: str) -> bytes:
    """Rows as the bytes of a file, with the columns of the first one."""
    if suffix == ".parquet":
        return as_parquet(as_table(rows))
    if suffix == ".csv":
        return b"".join(as_csv(*each) + b"\n" for each in [rows[0], *(r.values() for r in rows)])
    lines = b"".join(as_json(row) + b"\n" for row in rows)
    return gzip.compress(lines) if suffix.endswith(".gz") else lines


def as_table(rows: list[Row]) -> pa.Table:
    return pa.table({name: [row[name] for row in rows] for name in rows[0]})


def as_parquet(table: pa.Table, **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def unchecked_text(values: list[str | bytes | None]) -> pa.Array:
    """A column of texts, unchecked, so that they need not be UTF-8."""
    encoded = [each.encode() if isinstance(each, str) else each for each in values]
    raw = pa.array(encoded, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)
