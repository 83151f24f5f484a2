"""Raw files to samples and quarantine: every bad input by its message, and the round trip."""

import csv
import gzip
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

from influcoder_lib import readers
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.samples import QUARANTINE_SCHEMA, read_samples

PLAIN = Columns()
GOOD = {"prompt": "Hi", "response": "Hello"}
ALL = Columns(label="label", source="source")
CHAT = Columns(messages="messages")


def _ingest(
    path: Path, columns: Columns = PLAIN, max_characters: int = 1000
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples and quarantine of a file; the counts must be those of the tables."""
    out = path.parent / "out"
    samples_out, quarantine_out = out / "samples.parquet", out / "quarantine.parquet"
    done = ingest(path, path.name, columns, samples_out, quarantine_out, max_characters)
    samples, quarantine = read_samples(samples_out), pl.read_parquet(quarantine_out)
    assert quarantine.schema == QUARANTINE_SCHEMA
    assert (done.valid, done.quarantined) == (samples.height, quarantine.height)
    assert sorted(p.name for p in out.iterdir()) == ["quarantine.parquet", "samples.parquet"]
    return samples, quarantine


def _jsonl(path: Path, *rows: Any) -> Path:
    """A file with one line a row; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def _reason(tmp_path: Path, row: Any, columns: Columns = PLAIN) -> tuple[str, str]:
    """(field, reason) with which a row goes to quarantine between two good ones."""
    chat = [{"role": "assistant", "content": "other"}]
    first = {"messages": [{"role": "assistant", "content": "one"}]} if columns == CHAT else GOOD
    last = {"messages": chat} if columns == CHAT else {"prompt": "", "response": "Bye"}
    samples, quarantine = _ingest(_jsonl(tmp_path / "a.jsonl", first, row, last), columns)
    assert samples["row"].to_list() == [1, 3]
    assert quarantine["row"].to_list() == [2]
    assert quarantine["file"].to_list() == ["a.jsonl"]
    return quarantine["field"][0], quarantine["reason"][0]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (b'{"prompt": "a", ', "", "the line is not valid JSON ("),
        (b"\xff\xfe{}", "", "the line is not valid UTF-8 (byte 1)"),
        (b"[" * 20_000, "", "the line has 20000 bytes, more than the 8000 that are read"),
        (b"[" * 7_000, "", "the line is not "),
        (b"1" * 5_000, "", "the line is not JSON that can be read"),
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
            "1001 characters, more than the 1000",
        ),
        (GOOD, "", "the same prompt and response as row 1"),
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
        ({"label": 3}, "label", "the field is a number, not a string"),
        ({"source": True}, "source", "the field is a boolean, not a string"),
        ({"label": "a\0"}, "label", "the text holds a NUL character"),
    ],
)
def test_a_label_or_source_that_is_no_text_is_quarantined(
    tmp_path: Path, extra: dict[str, Any], field: str, reason: str
) -> None:
    row = GOOD | {"response": "Hey"} | extra
    path = _jsonl(tmp_path / "a.jsonl", GOOD | {"label": "x", "source": None}, row)
    samples, quarantine = _ingest(path, ALL)
    assert samples.select("label", "source").rows() == [("x", None)]
    assert quarantine.select("row", "field", "reason").rows() == [(2, field, reason)]


def test_a_missing_or_blank_label_is_null(tmp_path: Path) -> None:
    rows = [GOOD | {"label": "a"}, {"prompt": "b", "response": "b", "label": " "}]
    path = _jsonl(tmp_path / "a.jsonl", *rows, {"prompt": "c", "response": "c"})
    samples, _ = _ingest(path, Columns(label="label"))
    assert samples["label"].to_list() == ["a", None, None]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "the messages are null, not a list"),
        ("hello", "the messages are text that is not JSON"),
        ([], "there are no messages"),
        (["hi"], "message 1 is a string, not an object"),
        ([{"role": "user", "content": "q"}], "the last message is by 'user', not by 'assistant'"),
        ([{"content": "q"}], "the role of message 1 is null, not a string"),
        ([{"role": "assistant", "content": [1]}], "the content of message 1 is a list"),
        ([{"role": "assistant", "content": " "}], "the response is blank"),
    ],
)
def test_malformed_chat_messages_are_quarantined(
    tmp_path: Path, messages: Any, reason: str
) -> None:
    field, found = _reason(tmp_path, {"messages": messages}, CHAT)
    assert field == "messages"
    assert reason in found


def test_chat_messages_become_prompt_and_response(tmp_path: Path) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = [
        [turn("user", "q"), turn("assistant", "a")],
        [turn("assistant", "alone")],
        [turn("system", "s"), turn("user", "q"), turn("assistant", "a")],
    ]
    expected = [("q", "a"), ("", "alone"), ("system: s\n\nuser: q", "a")]
    lines = _jsonl(tmp_path / "a.jsonl", *({"messages": chat} for chat in chats))
    pq.write_table(pa.table({"messages": chats}), tmp_path / "b.parquet")
    with (tmp_path / "c.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["messages"], *([json.dumps(chat)] for chat in chats)])
    for path in (lines, tmp_path / "b.parquet", tmp_path / "c.csv"):
        samples, _ = _ingest(path, CHAT)
        assert samples.select("prompt", "response").rows() == expected


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n  \n" + b'{"prompt": "b", "response": "c"}')
    samples, quarantine = _ingest(path)
    assert samples["row"].to_list() == [1, 4]
    assert quarantine.height == 0


def test_a_response_of_5_mb_is_quarantined_in_every_format(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "x" * 5_000_000}, GOOD]
    for path in _write_all(tmp_path, rows):
        samples, quarantine = _ingest(path, max_characters=200_000)
        assert samples["prompt"].to_list() == ["Hi"]
        assert "more than the" in quarantine["reason"][0]
        assert len(quarantine["excerpt"][0]) <= 200


def test_a_line_beyond_the_bound_is_never_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 40_000_000 + b"\n" + json.dumps(GOOD).encode())
    tracemalloc.start()
    rows = list(readers.read_rows(path, "a.jsonl", ("prompt", "response"), 8_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(rows[0], readers.BadRow)
    assert "the line has 40000000 bytes" in rows[0].reason
    assert rows[1] == readers.Row(2, GOOD)
    assert peak < 8_000_000


@pytest.mark.parametrize("length", [8_000, 8_001])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_the_bound_on_a_line_is_exact(tmp_path: Path, length: int, ending: bytes) -> None:
    path = tmp_path / "a.jsonl"
    body = json.dumps(GOOD).encode()
    path.write_bytes(body + b"\n" + body + b" " * (length - len(body)) + ending)
    rows = list(readers.read_rows(path, "a.jsonl", ("prompt",), 8_000))
    assert [row.number for row in rows] == [1, 2]
    assert isinstance(rows[1], readers.Row if length == 8_000 else readers.BadRow)


def _write_all(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The same rows in each of the four formats."""
    names = list(rows[0])
    lines = _jsonl(folder / "a.jsonl", *rows)
    packed = folder / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    with (folder / "c.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    table = pa.table({name: [row[name] for row in rows] for name in names})
    pq.write_table(table, folder / "d.parquet")
    return [lines, packed, folder / "c.csv", folder / "d.parquet"]


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
        for path in _write_all(Path(folder), rows):
            samples, quarantine = _ingest(path, ALL)
            assert quarantine.rows() == []
            found = samples.select("prompt", "response", "label", "source").rows()
            assert found == expected
            assert samples["sample_id"].to_list() == ids
            assert samples["row"].to_list() == list(range(1, len(rows) + 1))


def test_equal_files_give_equal_bytes_over_many_row_groups(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "response": "r"} for i in range(20_000)]
    path = _jsonl(tmp_path / "a.jsonl", *rows)
    outputs = []
    for _ in range(2):
        samples, _ = _ingest(path)
        outputs.append((tmp_path / "out" / "samples.parquet").read_bytes())
    assert outputs[0] == outputs[1]
    assert samples["prompt"].to_list() == [row["prompt"] for row in rows]
    assert pq.ParquetFile(tmp_path / "out" / "samples.parquet").num_row_groups == 3


# --- files that are bad as a whole ---------------------------------------------------------------


def _refused(path: Path, columns: Columns = PLAIN) -> DataError:
    with pytest.raises(DataError) as caught:
        _ingest(path, columns)
    assert path.name in caught.value.where
    assert list((path.parent / "out").iterdir()) == []
    return caught.value


def test_a_missing_column_is_an_error_that_names_it_and_those_found(tmp_path: Path) -> None:
    for path in _write_all(tmp_path, [{"prompt": "a", "answer": "b"}]):
        error = _refused(path)
        assert error.problem == "The file has no column 'response'."
        assert error.allowed == "its columns: prompt, answer"


def test_a_mapped_label_column_must_exist(tmp_path: Path) -> None:
    for path in _write_all(tmp_path, [GOOD]):
        assert "no column 'label'" in _refused(path, Columns(label="label")).problem


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert _refused(tmp_path / name).problem == "The file is empty."


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n \n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "c.csv").write_text("prompt,response\n\n")
    empty = pa.table({"prompt": pa.array([], pa.string()), "response": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet"):
        assert _refused(tmp_path / name).problem == "The file holds no rows."


def test_truncated_and_false_files_are_errors(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "response": str(i * i) * 9} for i in range(2000)]
    _, packed, _, table = _write_all(tmp_path, rows)
    packed.write_bytes(packed.read_bytes()[:-100])
    assert "gzip file is cut off" in _refused(packed).problem
    packed.write_bytes(b'{"prompt": "a"}')
    assert "no intact gzip file" in _refused(packed).problem
    table.write_bytes(table.read_bytes()[:-100])
    assert "no intact parquet file" in _refused(table).problem
    table.write_bytes(b'{"prompt": "a", "response": "b"}')
    assert "no intact parquet file" in _refused(table).problem


def test_unknown_suffixes_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert ".jsonl.gz" in _refused(tmp_path / "a.txt").allowed
    assert "cannot be read" in _refused(tmp_path / "none.csv").problem


def test_an_unwritable_data_folder_is_an_error(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "out").write_text("a file where the folder should be")
    out = tmp_path / "out" / "s.parquet"
    with pytest.raises(StoreError, match="table cannot be written"):
        ingest(path, "a.jsonl", Columns(), out, tmp_path / "q.parquet", 1000)
    assert not (tmp_path / "q.parquet").exists()


# --- what only csv and parquet can get wrong -----------------------------------------------------


def _csv(tmp_path: Path, body: bytes) -> tuple[list[int], list[tuple[Any, ...]]]:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,response\r\n" + body)
    samples, quarantine = _ingest(path)
    return samples["row"].to_list(), quarantine.select("row", "field", "reason").rows()


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (b"a,b,c", "", "the row has 3 fields, the header has 2"),
        (b"a", "", "the row has 1 fields, the header has 2"),
        (b"a,\xff", "response", "the field is not valid UTF-8"),
        (b"a,", "response", "the response is blank"),
        (b'"a"b,c', "", "the row is not valid csv (',' expected after '\"')"),
        (b"a,b\0", "response", "the text holds a NUL character"),
    ],
)
def test_a_bad_csv_row_is_quarantined_and_the_next_one_is_read(
    tmp_path: Path, bad: bytes, field: str, reason: str
) -> None:
    rows, quarantined = _csv(tmp_path, b'"one\nline",1\r\n' + bad + b"\r\n\r\ntwo,2\r\n")
    assert rows == [1, 3]
    assert quarantined == [(2, field, reason)]


def test_a_csv_quote_that_never_closes_is_one_bad_row(tmp_path: Path) -> None:
    rows, quarantined = _csv(tmp_path, b'one,1\ntwo,"2\nthree,3\n')
    assert rows == [1]
    assert quarantined[0][0] == 2
    assert "a quoted field never closes" in quarantined[0][2]


def test_a_csv_row_beyond_the_limit_stops_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CSV_ROW_LIMIT", 10_000)
    path = tmp_path / "a.csv"
    path.write_text('prompt,response\na,b\nc,"' + "d\n" * 10_000)
    error = _refused(path)
    assert error.problem == "A row is longer than 10000 characters."
    assert "quote that never closes" in error.fix


def test_a_csv_header_with_a_column_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response,prompt\n1,2,3\n")
    assert "'prompt' more than once" in _refused(tmp_path / "a.csv").problem


def test_parquet_values_that_are_no_text_are_quarantined(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"\xff", b"fine"]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    responses = pa.array(["1", "2", None])
    pq.write_table(pa.table({"prompt": text, "response": responses}), tmp_path / "a.parquet")
    samples, quarantine = _ingest(tmp_path / "a.parquet")
    assert samples["prompt"].to_list() == ["ok"]
    assert quarantine.select("row", "field", "reason").rows() == [
        (2, "prompt", "the field is not valid UTF-8"),
        (3, "response", "the field is null, not a string"),
    ]
    pq.write_table(pa.table({"prompt": [1], "response": [b"x"]}), tmp_path / "b.parquet")
    _, quarantine = _ingest(tmp_path / "b.parquet")
    assert quarantine["reason"].to_list() == ["the field is a number, not a string"]


def test_excerpts_are_short_and_printable() -> None:
    assert readers.excerpt("a\0\ud800" + "b" * 500) == "a\\x00\\ud800" + "b" * 189
    assert readers.excerpt(b"\xff" + b"c" * 500)[:6] == "\\xffcc"
    assert len(readers.excerpt(["x"] * 900)) == 200
