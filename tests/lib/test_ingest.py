"""Raw files to samples and quarantine: every bad input by its message, and the round trip."""

import csv
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib import ingest as ingest_module
from influcoder_lib import raw_rows, readers
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.ingest import Columns
from influcoder_lib.raw_rows import Asked
from tests.lib.raw_files import PLAIN, ingested, jsonl, write_all

GOOD = {"prompt": "Hi", "response": "Hello"}
OTHER = b'{"prompt": "a", "response": "b"}'
ALL = Columns(label="label", source="source")
CHAT = Columns(messages="messages")


def _chat(*messages: Any) -> bytes:
    """A line with these messages."""
    return json.dumps({"messages": messages}).encode()


def _reason(tmp_path: Path, row: Any, columns: Columns = PLAIN) -> tuple[str, str]:
    """(field, reason) with which a row goes to quarantine between two good ones."""
    chat = [{"role": "assistant", "content": "other"}]
    first = {"messages": [{"role": "assistant", "content": "one"}]} if columns == CHAT else GOOD
    last = {"messages": chat} if columns == CHAT else {"prompt": "", "response": "Bye"}
    samples, quarantine = ingested(jsonl(tmp_path / "a.jsonl", first, row, last), columns)
    assert samples["row"].to_list() == [1, 3]
    assert quarantine["row"].to_list() == [2]
    assert quarantine["file"].to_list() == ["a.jsonl"]
    return quarantine["field"][0], quarantine["reason"][0]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (b'{"prompt": "a", ', "", "the line is not valid JSON ("),
        (b"\xff\xfe{}", "", "the line is not valid UTF-8"),
        (b"[" * 7_000, "", "the line is not "),
        (b"1" * 5_000, "", "the line is not JSON that can be read"),
        (b'{"prompt": "a", "response": "b", "prompt": "c"}', "", "a key is there more than once"),
        ([1], "", "the line is a list, not a JSON object"),
        ({"response": "x"}, "prompt", "the field is missing"),
        ({"prompt": None, "response": "x"}, "prompt", "the field is null, not a string"),
        ({"prompt": "a", "response": None}, "response", "the field is null, not a string"),
        ({"prompt": "a", "response": 7}, "response", "the field is a number, not a string"),
        ({"prompt": "a", "response": ["x"]}, "response", "the field is a list, not a string"),
        ({"prompt": "a", "response": " \n"}, "response", "the response is blank"),
        ({"prompt": "a\0", "response": "x"}, "prompt", "the text holds a NUL character"),
        ({"prompt": "a", "response": "\ud800"}, "response", "half of a surrogate pair"),
        (
            {"prompt": "a", "response": "x" * 1001},
            "response",
            "more than the 1000 characters allowed",
        ),
        (GOOD, "", "the same prompt and response as an earlier row"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(
    tmp_path: Path, row: Any, field: str, reason: str
) -> None:
    found_field, found_reason = _reason(tmp_path, row)
    assert found_field == field
    assert reason in found_reason


@pytest.mark.parametrize(
    ("extra", "field", "reason"),
    [
        ({"label": ["x"]}, "label", "the field is a list, not a string"),
        ({"source": {"name": "x"}}, "source", "the field is an object, not a string"),
        ({"label": "a\0"}, "label", "the text holds a NUL character"),
    ],
)
def test_a_label_or_source_that_is_no_text_is_quarantined(
    tmp_path: Path, extra: dict[str, Any], field: str, reason: str
) -> None:
    row = GOOD | {"response": "Hey"} | extra
    path = jsonl(tmp_path / "a.jsonl", GOOD | {"label": "x", "source": None}, row)
    samples, quarantine = ingested(path, ALL)
    assert samples.select("label", "source").rows() == [("x", None)]
    assert quarantine.select("row", "field", "reason").rows() == [(2, field, reason)]


@pytest.mark.parametrize(
    ("given", "label"),
    [(0, "0"), (-3, "-3"), (True, "true"), (False, "false"), (1.0, "1"), (-0.0, "0"), (0.5, "0.5")],
)
def test_a_label_or_source_that_is_a_number_is_kept_as_text(
    tmp_path: Path, given: object, label: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD | {"label": given, "source": given})
    samples, quarantine = ingested(path, ALL)
    assert samples.select("label", "source").rows() == [(label, label)]
    assert quarantine.is_empty()


def test_labels_of_a_table_with_gaps_are_whole_numbers_and_gaps(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "prompt": ["a", "b", "c"],
            "response": ["x", "y", "z"],
            "label": [1.0, float("nan"), None],
        }
    )
    table.write_parquet(tmp_path / "a.parquet")
    samples, quarantine = ingested(tmp_path / "a.parquet", Columns(label="label"))
    assert samples["label"].to_list() == ["1", None, None]
    assert quarantine.is_empty()


def test_a_missing_or_blank_label_is_null(tmp_path: Path) -> None:
    rows = [GOOD | {"label": "a"}, {"prompt": "b", "response": "b", "label": " "}]
    path = jsonl(tmp_path / "a.jsonl", *rows, {"prompt": "c", "response": "c"})
    samples, _ = ingested(path, Columns(label="label"))
    assert samples["label"].to_list() == ["a", None, None]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "the messages are null, not a list"),
        ("hello", "the messages are text that is not JSON"),
        ([], "there are no messages"),
        (["hi"], "a message is a string, not an object"),
        ([{"role": "user", "content": "q"}], "the last message is not by 'assistant'"),
        ([{"content": "q"}], "the role of a message is null, not a string"),
        ([{"role": "assistant", "content": [1]}], "the content of a message is a list"),
        ([{"role": "assistant", "content": " "}], "the response is blank"),
    ],
)
def test_malformed_chat_messages_are_quarantined(
    tmp_path: Path, messages: Any, reason: str
) -> None:
    field, found = _reason(tmp_path, {"messages": messages}, CHAT)
    assert field == "messages"
    assert reason in found


@pytest.mark.parametrize(
    ("name", "columns", "lines", "notes"),
    [
        ("a.jsonl", PLAIN, [b"x" * length for length in (20, 30)], ["column 1: xxx"] * 2),
        ("a.jsonl", PLAIN, [b"\xff", b"a\xff"], ["byte 1: \\xff", "byte 2: a\\xff"]),
        ("a.jsonl", PLAIN, [b"9" * n for n in (5_000, 6_000)], ["Exceeds the limit"] * 2),
        (
            "a.jsonl",
            PLAIN,
            [f'{{"{name}": 1, "{name}": 2}}'.encode() for name in "ab"],
            ["the key 'a': {", "the key 'b': {"],
        ),
        (
            "a.jsonl",
            PLAIN,
            [json.dumps(GOOD | {"response": "x" * (1000 + n)}).encode() for n in (1, 2)],
            ["1001 characters: xxx", "1002 characters: xxx"],
        ),
        ("a.jsonl", PLAIN, [json.dumps(GOOD).encode()] * 3, ["row 2: Hello", "row 2: Hello"]),
        (
            "a.jsonl",
            CHAT,
            [_chat({"role": role, "content": "x"}) for role in ("user", "tool" * 1000)],
            ["by 'user': [{", "by 'tooltool"],
        ),
        (
            "a.jsonl",
            CHAT,
            [_chat(*[{"role": "user", "content": "x"}] * n, "") for n in (1, 2)],
            ["message 2: [{", "message 3: [{"],
        ),
        (
            "a.jsonl",
            CHAT,
            [_chat(*[{"role": "user", "content": "x"}] * n, {"role": 1}) for n in (1, 2)],
            ["message 2: [{", "message 3: [{"],
        ),
        ("a.csv", PLAIN, [b"a", b"a,b,c"], ["1 fields, not 2: a", "3 fields, not 2: a,b,c"]),
    ],
)
def test_a_reason_is_the_same_for_all_rows_and_the_excerpt_says_what_is_not(
    tmp_path: Path, name: str, columns: Columns, lines: list[bytes], notes: list[str]
) -> None:
    first = _chat({"role": "assistant", "content": "one"}) if columns == CHAT else OTHER
    path = tmp_path / name
    path.write_bytes(b"\n".join([b"prompt,response\na,b" if name == "a.csv" else first, *lines]))
    _, quarantine = ingested(path, columns)
    assert quarantine["reason"].n_unique() == 1
    excerpts = quarantine["excerpt"].to_list()
    assert [said[: len(note)] for said, note in zip(excerpts, notes, strict=True)] == notes
    assert max(map(len, excerpts)) <= raw_rows.EXCERPT


def test_chat_messages_become_prompt_and_response(tmp_path: Path) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = [
        [turn("user", "q"), turn("assistant", "a")],
        [turn("assistant", "alone")],
        [turn("system", "s"), turn("user", "q"), turn("assistant", "a")],
    ]
    expected = [("q", "a"), ("", "alone"), ("system: s\n\nuser: q", "a")]
    lines = jsonl(tmp_path / "a.jsonl", *({"messages": chat} for chat in chats))
    pq.write_table(pa.table({"messages": chats}), tmp_path / "b.parquet")
    with (tmp_path / "c.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["messages"], *([json.dumps(chat)] for chat in chats)])
    for path in (lines, tmp_path / "b.parquet", tmp_path / "c.csv"):
        samples, _ = ingested(path, CHAT)
        assert samples.select("prompt", "response").rows() == expected


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n  \n" + b'{"prompt": "b", "response": "c"}')
    samples, quarantine = ingested(path)
    assert samples["row"].to_list() == [1, 4]
    assert quarantine.height == 0


def test_a_response_of_5_mb_is_quarantined_in_every_format(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "x" * 5_000_000}, GOOD]
    for path in write_all(tmp_path, rows):
        samples, quarantine = ingested(path, max_characters=200_000)
        assert samples["prompt"].to_list() == ["Hi"]
        assert "more than the" in quarantine["reason"][0]
        assert len(quarantine["excerpt"][0]) <= 200


def test_a_line_beyond_the_bound_is_never_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 40_000_000 + b"\n" + json.dumps(GOOD).encode())
    tracemalloc.start()
    rows = list(readers.read_rows(path, "a.jsonl", Asked(("prompt", "response")), 8_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(rows[0], raw_rows.BadRow)
    assert rows[0].reason == "the line has more than the 8000 bytes that are read"
    assert rows[0].excerpt.startswith("40000000 bytes: xxx")
    assert rows[1] == raw_rows.Row(2, GOOD)
    assert peak < 8_000_000


@pytest.mark.parametrize("length", [8_000, 8_001])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_the_bound_on_a_line_is_exact(tmp_path: Path, length: int, ending: bytes) -> None:
    path = tmp_path / "a.jsonl"
    body = json.dumps(GOOD).encode()
    path.write_bytes(body + b"\n" + body + b" " * (length - len(body)) + ending)
    rows = list(readers.read_rows(path, "a.jsonl", Asked(("prompt",)), 8_000))
    assert [row.number for row in rows] == [1, 2]
    assert isinstance(rows[1], raw_rows.Row if length == 8_000 else raw_rows.BadRow)


@pytest.mark.parametrize("length", [798, 799, 800, 801, 805])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_byte_order_mark_counts_for_nothing(tmp_path: Path, length: int, ending: bytes) -> None:
    path = tmp_path / "a.jsonl"
    body = json.dumps(GOOD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + body.ljust(length) + ending + body)
    rows = list(readers.read_rows(path, "a.jsonl", Asked(("prompt",)), 800))
    kind = raw_rows.Row if length <= 800 else raw_rows.BadRow
    assert [(type(row), row.number) for row in rows] == [(kind, 1), (raw_rows.Row, 2)]


@pytest.mark.parametrize("character", ["x", "\N{CJK UNIFIED IDEOGRAPH-65E5}", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("limit", [100, 1_000_000])
def test_a_row_within_the_limit_is_read_however_it_is_escaped(
    tmp_path: Path, character: str, limit: int
) -> None:
    row = {"prompt": character * limit, "response": character * limit}
    samples, _ = ingested(jsonl(tmp_path / "a.jsonl", row), max_characters=limit)
    assert samples["prompt"].to_list() == [row["prompt"]]


def test_a_column_that_nobody_asked_for_may_be_long(tmp_path: Path) -> None:
    samples, _ = ingested(jsonl(tmp_path / "a.jsonl", GOOD | {"notes": "x" * 10_000}))
    assert samples["prompt"].to_list() == ["Hi"]


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": _TEXT,
            "response": _TEXT.filter(str.strip),
            "label": st.none() | _TEXT.filter(str.strip),
            "source": st.none() | _TEXT.filter(str.strip),
        }
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: (row["prompt"], row["response"]),
)


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS)
def test_valid_rows_come_back_identical_from_every_format(rows: list[dict[str, Any]]) -> None:
    expected = [tuple(row[n] for n in ("prompt", "response", "label", "source")) for row in rows]
    ids = [sample_id(row["prompt"], row["response"]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        for path in write_all(Path(folder), rows):
            samples, quarantine = ingested(path, ALL)
            assert quarantine.rows() == []
            found = samples.select("prompt", "response", "label", "source").rows()
            assert found == expected
            assert samples["sample_id"].to_list() == ids
            assert samples["row"].to_list() == list(range(1, len(rows) + 1))


def test_equal_files_give_equal_bytes_over_many_row_groups(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "response": "r"} for i in range(20_000)]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    outputs = []
    for _ in range(2):
        samples, _ = ingested(path)
        outputs.append((tmp_path / "out" / "samples.parquet").read_bytes())
    assert outputs[0] == outputs[1]
    assert samples["prompt"].to_list() == [row["prompt"] for row in rows]
    assert pq.ParquetFile(tmp_path / "out" / "samples.parquet").num_row_groups == 3


def test_blocks_are_cut_by_labels_and_sources_too() -> None:
    long = "x" * 1_000_000
    rows = [ingest_module._Valid(f"{n:032x}", "a", "b", long, long, n) for n in range(6)]
    assert [len(block) for block in ingest_module._blocks(rows)] == [3, 3]
