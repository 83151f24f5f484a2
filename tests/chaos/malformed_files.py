"""Kinds of malformed files: each writes one, and knows what has to become of it.

What bad rows look like in each format is in `malformed_rows`, names and links that are no shards in
`malformed_names`.
"""

import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from tests.chaos.malformed_rows import (
    COLUMNS,
    SUFFIXES,
    Fault,
    Row,
    as_csv,
    as_file,
    as_json,
    as_parquet,
    as_table,
    csv_faults,
    good_rows,
    json_faults,
    unchecked_text,
    value_faults,
)

_HEADER = as_csv(*COLUMNS)
_MIB = 1 << 20


@dataclass(frozen=True)
class Expected:
    """What becomes of a file: `good` rows, and `bad` ones by a part of their reason; or `fails`, a
    part of what is said when it is read; or `refused`, a part of what is said of it unread."""

    name: str
    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    fails: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Place:
    """Where one kind of file is written, and the dice that it is drawn with."""

    folder: Path
    stem: str
    dice: random.Random

    def put(self, suffix: str, content: bytes) -> str:
        """Write a file; its name, relative to the corpus."""
        (self.folder / f"{self.stem}{suffix}").write_bytes(content)
        return f"{self.stem}{suffix}"

    def lines(
        self, rows: list[Row], suffix: str = ".jsonl", faults: list[Fault] | None = None
    ) -> Expected:
        """Write good rows and bad ones as lines of json or csv; the first row is a good one."""
        as_line = as_json if "json" in suffix else (lambda row: as_csv(*row.values()))
        others = [*map(as_line, rows[1:]), *(line for line, _ in faults or [])]
        self.dice.shuffle(others)
        head = [] if "json" in suffix else [_HEADER]
        content = b"\n".join([*head, as_line(rows[0]), *others, b""])
        name = self.put(suffix, gzip.compress(content, 1) if suffix.endswith(".gz") else content)
        return Expected(name, len(rows), Counter(reason for _, reason in faults or []))


Kind = Callable[[Place], Iterator[Expected]]


# Rows.


def rows_of_json(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    suffix = place.dice.choice((".jsonl", ".jsonl.gz"))
    yield place.lines(rows, suffix, json_faults(place.dice, rows[0]))


def rows_of_csv(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    yield place.lines(rows, ".csv", csv_faults(place.dice, rows[0]))


def rows_of_parquet(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    faults = value_faults(place.dice, rows[0])
    values = [*rows, *(row for row, _ in faults)]
    table = pa.table({name: unchecked_text([row[name] for row in values]) for name in COLUMNS})
    group = place.dice.choice((1, 3, 1000))
    name = place.put(".parquet", as_parquet(table, row_group_size=group))
    yield Expected(name, len(rows), Counter(reason for _, reason in faults))


# Encodings.


def other_encoding(place: Place) -> Iterator[Expected]:
    rows, suffix = good_rows(place.dice), place.dice.choice((".jsonl", ".jsonl.gz", ".csv"))
    encoding = place.dice.choice(("utf-16", "utf-32"))
    content = as_file(rows, suffix.removesuffix(".gz")).decode().encode(encoding)
    name = place.put(suffix, gzip.compress(content) if suffix.endswith(".gz") else content)
    yield Expected(name, fails=f"The file is {encoding.upper()}, not UTF-8")


def utf_16_without_a_mark(place: Place) -> Iterator[Expected]:
    content = b'{"prompt": "a", "response": "b"}'.decode().encode("utf-16-le")
    yield Expected(place.put(".jsonl", content), 0, Counter(["the line is not valid JSON"]))


def latin_1(place: Place) -> Iterator[Expected]:
    rows = [{"prompt": word, "response": word} for word in ("cafe", "café", "naïve", "plain")]
    lines = [f'{{"prompt": "{row["prompt"]}", "response": "b", "label": "c"}}' for row in rows]
    name = place.put(".jsonl", "\n".join(lines).encode("latin-1"))
    yield Expected(name, 2, Counter({"the line is not valid UTF-8": 2}))


def byte_order_mark(place: Place) -> Iterator[Expected]:
    rows, suffix = good_rows(place.dice), place.dice.choice((".jsonl", ".csv"))
    content = b"\xef\xbb\xbf" + as_file(rows, suffix).replace(b"\n", b"\r\n")
    yield Expected(place.put(suffix, content), len(rows))


def old_mac_lines(place: Place) -> Iterator[Expected]:
    content = as_file(good_rows(place.dice, 2), ".jsonl").replace(b"\n", b"\r")
    yield Expected(place.put(".jsonl", content), 0, Counter(["the line is not valid JSON"]))


# What is cut off, or is not what it says.


def cut_lines(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice, 2)
    content = as_file(rows, ".jsonl")
    name = place.put(".jsonl", content[: -place.dice.randint(3, 9)])
    yield Expected(name, len(rows) - 1, Counter(["the line is not valid JSON"]))


def cut_gzip(place: Place) -> Iterator[Expected]:
    packed = gzip.compress(as_file(good_rows(place.dice), ".jsonl"))
    cut = packed[: place.dice.randint(11, len(packed) - 1)]
    yield Expected(place.put(".jsonl.gz", cut), fails="The gzip file is cut off")


def wrong_gzip(place: Place) -> Iterator[Expected]:
    packed = gzip.compress(as_file(good_rows(place.dice), ".jsonl"))
    wrong = (packed[:-8] + b"\1" * 8, packed + b"a tail", b"{}\n", packed[4:])
    name = place.put(".jsonl.gz", place.dice.choice(wrong))
    yield Expected(name, fails="The file is no intact gzip file")


def wrong_parquet(place: Place) -> Iterator[Expected]:
    whole = as_parquet(as_table(good_rows(place.dice)))
    wrong = (whole[:-1], whole[: len(whole) // 2], whole[4:], b"PAR1PAR1", whole[:-40] + whole[-8:])
    name = place.put(".parquet", place.dice.choice(wrong))
    yield Expected(name, fails="The file is no intact parquet file")


def open_quote(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice, 2)
    content = as_file(rows, ".csv") + b'a,"b,\n' + as_file(good_rows(place.dice), ".csv")
    yield Expected(place.put(".csv", content), len(rows), Counter(["a quoted field never closes"]))


def quote_for_ever(place: Place) -> Iterator[Expected]:
    content = _HEADER + b'\na,"' + b"b,c\n" * (6 * _MIB)
    yield Expected(place.put(".csv", content), fails="A row is longer than")


# Columns.


def other_columns(place: Place) -> Iterator[Expected]:
    missing = place.dice.choice(COLUMNS)
    rows = good_rows(place.dice)
    for row in rows:
        del row[missing]
    suffix = place.dice.choice(SUFFIXES)
    name = place.put(suffix, as_file(rows, suffix))
    if missing == "label":
        yield Expected(name, len(rows))
    else:
        yield Expected(name, fails=f"The file has no column {missing!r}")


def mixed_columns(place: Place) -> Iterator[Expected]:
    rows, others = good_rows(place.dice), good_rows(place.dice)
    renamed = [{"question": row["prompt"], "answer": row["response"]} for row in others]
    faults = [(as_json(row), "the field is missing") for row in renamed]
    yield place.lines(rows, ".jsonl", faults)


def column_twice(place: Place) -> Iterator[Expected]:
    if place.dice.random() < 0.5:
        name = place.put(".csv", b"prompt,response,label,prompt\n1,2,3,4\n")
    else:
        table = pa.table([["a"], ["b"], ["c"], ["d"]], names=[*COLUMNS, "prompt"])
        name = place.put(".parquet", as_parquet(table))
    yield Expected(name, fails="'prompt' more than once")


def values_of_another_type(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    array, reason = place.dice.choice(
        [
            (pa.array(range(len(rows))), "the field is a number"),
            (pa.array([b"a"] * len(rows)), "the field is binary"),
            (pa.array([{"text": "a"}] * len(rows)), "the field is an object"),
            (pa.array([["a"]] * len(rows)), "the field is a list"),
            (pa.array([1 << 62] * len(rows)).cast(pa.timestamp("us")), "the field is of type"),
            (pa.nulls(len(rows)), "the field is null"),
        ]
    )
    table = as_table(rows).set_column(0, "prompt", array)
    yield Expected(place.put(".parquet", as_parquet(table)), 0, Counter({reason: len(rows)}))


def types_that_are_text_too(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    kind = place.dice.choice([pa.dictionary(pa.int32(), pa.string()), pa.large_string()])
    table = as_table(rows).cast(pa.schema([(name, kind) for name in COLUMNS]))
    yield Expected(place.put(".parquet", as_parquet(table)), len(rows))


def many_columns(place: Place) -> Iterator[Expected]:
    rows, suffix = good_rows(place.dice), place.dice.choice(SUFFIXES)
    more = {f"column {number}": "" for number in range(3_000)}
    content = as_file([{**row, **more} for row in rows], suffix)
    yield Expected(place.put(suffix, content), len(rows))


def header_for_ever(place: Place) -> Iterator[Expected]:
    names = b",".join(b"c%d" % number for number in range(1_500_000))
    content = _HEADER + b"," + names + b"\n" + names + b"\n"
    yield Expected(place.put(".csv", content), fails="A header is longer than")


# Bombs.


def gzip_bomb(place: Place) -> Iterator[Expected]:
    piece = place.dice.choice((b"\0", b"\n", b"{}\n", b"[", b'"')) * (16 * _MIB)
    content = gzip.compress(piece) * (4096 * _MIB // len(piece))
    yield Expected(place.put(".jsonl.gz", content), fails="times its size")


def long_text_many_times(place: Place) -> Iterator[Expected]:
    text = pa.array(["x" * (4 * _MIB)])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), text)
    table = pa.table(dict.fromkeys(COLUMNS, repeated))
    yield Expected(place.put(".parquet", as_parquet(table)), fails="times its size")


def row_many_times(place: Place) -> Iterator[Expected]:
    repeated = pa.DictionaryArray.from_arrays(pa.nulls(1 << 25, pa.int8()).fill_null(0), ["a"])
    table = pa.table(dict.fromkeys(COLUMNS, repeated))
    yield Expected(place.put(".parquet", as_parquet(table)), fails="times its size")


def page_of_one_text(place: Place) -> Iterator[Expected]:
    text = pa.array(["x" * (128 * _MIB)])
    table = pa.table(dict.fromkeys(COLUMNS, text))
    content = as_parquet(table, compression="zstd", use_dictionary=False, write_statistics=False)
    yield Expected(place.put(".parquet", content), fails="times its size")


def false_counts(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice, 100, 100)
    content = as_parquet(as_table(rows), compression="none", use_dictionary=False)
    # Zigzag varints of 100 and of 2^40, in the footer wherever a count of rows or values stands.
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    false = content[footer:-8].replace(b"\x16\xc8\x01", b"\x16" + b"\x80" * 5 + b"\x40")
    whole = content[:footer] + false + len(false).to_bytes(4, "little") + b"PAR1"
    yield Expected(place.put(".parquet", whole), fails="times its size")


# Files without rows, names, and what is no file.


def empty(place: Place) -> Iterator[Expected]:
    suffix = place.dice.choice(SUFFIXES)
    yield Expected(place.put(suffix, b""), fails="The file is empty")


def without_rows(place: Place) -> Iterator[Expected]:
    suffix = place.dice.choice(SUFFIXES)
    blank = {".jsonl": b" \n\n", ".jsonl.gz": gzip.compress(b""), ".csv": _HEADER + b"\n\n"}
    content = blank.get(suffix) or as_parquet(as_table(good_rows(place.dice)).slice(0, 0))
    yield Expected(place.put(suffix, content), fails="The file holds no rows")


CONTENTS: tuple[Kind, ...] = (
    rows_of_json,
    rows_of_csv,
    rows_of_parquet,
    other_encoding,
    utf_16_without_a_mark,
    latin_1,
    byte_order_mark,
    old_mac_lines,
    cut_lines,
    cut_gzip,
    wrong_gzip,
    wrong_parquet,
    open_quote,
    quote_for_ever,
    other_columns,
    mixed_columns,
    column_twice,
    values_of_another_type,
    types_that_are_text_too,
    many_columns,
    header_for_ever,
    gzip_bomb,
    long_text_many_times,
    row_many_times,
    page_of_one_text,
    false_counts,
    empty,
    without_rows,
)
