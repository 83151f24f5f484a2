"""Files that are bad as a whole, and what only csv and parquet can get wrong."""

import gzip
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influcoder_lib import ingest as ingest_module
from influcoder_lib import raw_rows
from influcoder_lib.errors import StoreError
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.parquet_rows import read_parquet
from influcoder_lib.raw_rows import Asked
from tests.lib.raw_files import ingested, jsonl, refused, write_all

GOOD = {"prompt": "Hi", "response": "Hello"}


# --- files that are bad as a whole ---------------------------------------------------------------


def test_a_missing_column_is_an_error_that_names_it_and_those_found(tmp_path: Path) -> None:
    for path in write_all(tmp_path, [{"prompt": "a", "answer": "b"}]):
        error = refused(path)
        assert error.problem == "The file has no column 'response'."
        assert error.allowed == "its columns: prompt, answer"


def test_a_file_without_the_column_for_labels_or_sources_has_samples_without(
    tmp_path: Path,
) -> None:
    columns = Columns(label="kind", source="from")
    for path in write_all(tmp_path, [{**GOOD, "from": "wiki"}]):
        samples, _ = ingested(path, columns)
        assert samples.select("label", "source").rows() == [(None, "wiki")]
        out = [tmp_path / name for name in ("samples.parquet", "quarantine.parquet")]
        assert ingest(path, path.name, columns, *out, 1000).without == ("kind",)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refused(tmp_path / name).problem == "The file is empty."


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n \n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "c.csv").write_text("prompt,response\n\n")
    empty = pa.table({"prompt": pa.array([], pa.string()), "response": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet"):
        assert refused(tmp_path / name).problem == "The file holds no rows."


def test_truncated_and_false_files_are_errors(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "response": str(i * i) * 9} for i in range(2000)]
    _, packed, _, table = write_all(tmp_path, rows)
    packed.write_bytes(packed.read_bytes()[:-100])
    assert "gzip file is cut off" in refused(packed).problem
    packed.write_bytes(b'{"prompt": "a"}')
    assert "no intact gzip file" in refused(packed).problem
    table.write_bytes(table.read_bytes()[:-100])
    assert "no intact parquet file" in refused(table).problem
    table.write_bytes(b'{"prompt": "a", "response": "b"}')
    assert "no intact parquet file" in refused(table).problem


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_that_says_it_is_not_utf_8_is_an_error(tmp_path: Path, encoding: str) -> None:
    lines, packed, table, _ = write_all(tmp_path, [GOOD])
    for path in (lines, table):
        path.write_bytes(path.read_text().encode(encoding))
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    for path in (lines, packed, table):
        assert refused(path).problem == f"The file is {encoding.upper()}, not UTF-8."


def _repeated(rows: int) -> pa.Table:
    """A text that is stored once and stands in so many rows."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 4_000_000])
    return pa.table({"prompt": text, "response": text})


@pytest.mark.parametrize("line", [b"\0", b"\n", b"{}\n"])
def test_a_gzip_file_that_grows_beyond_measure_is_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(line * 10_000_000) * 10)
    assert "more than 500 times its size" in refused(path).problem


def test_a_parquet_file_that_grows_beyond_measure_is_an_error(tmp_path: Path) -> None:
    text = pa.array(["x" * 40_000_000])
    row = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000_000, pa.int8()), ["a"])
    bombs = [_repeated(2_000), pa.table([text, text], names=["prompt", "response"])]
    bombs.append(pa.table([row, row], names=["prompt", "response"]))
    for place, bomb in enumerate(bombs):
        path = tmp_path / f"{place}.parquet"
        options = {} if place != 1 else {"use_dictionary": False}
        pq.write_table(bomb, path, compression="zstd", write_statistics=False, **options)
        before = pa.total_allocated_bytes()
        assert "more than 500 times its size" in refused(path).problem
        assert pa.total_allocated_bytes() - before < 100_000_000


def test_a_text_that_stands_in_many_rows_is_made_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_repeated(100), path, compression="none")
    tracemalloc.start()
    samples, quarantine = ingested(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert (len(samples), len(quarantine)) == (0, 100)


def test_unknown_suffixes_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert ".jsonl.gz" in refused(tmp_path / "a.txt").allowed
    assert "cannot be read" in refused(tmp_path / "none.csv").problem


def test_an_unwritable_data_folder_is_an_error(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "out").write_text("a file where the folder should be")
    out = tmp_path / "out" / "s.parquet"
    with pytest.raises(StoreError, match="table cannot be written"):
        ingest(path, "a.jsonl", Columns(), out, tmp_path / "q.parquet", 1000)
    assert not (tmp_path / "q.parquet").exists()


# --- what only csv and parquet can get wrong -----------------------------------------------------


def _csv(tmp_path: Path, body: bytes) -> tuple[list[int], list[tuple[Any, ...]]]:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,response\r\n" + body)
    samples, quarantine = ingested(path)
    return samples["row"].to_list(), quarantine.select("row", "field", "reason").rows()


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (b"a,b,c", "", "the row has more or fewer fields than the header"),
        (b"a", "", "the row has more or fewer fields than the header"),
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
    monkeypatch.setattr(ingest_module, "ROW_LIMIT", 10_000)
    path = tmp_path / "a.csv"
    path.write_text('prompt,response\na,b\nc,"' + "d\n" * 20_000)
    error = refused(path)
    assert error.problem == "A row is longer than 34000 characters."
    assert "quote that never closes" in error.fix


def test_a_csv_header_beyond_the_limit_stops_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,response," + "x," * (1 << 19) + "\na,b\n")
    assert refused(path).problem == "A header is longer than 1048576 characters."


def test_a_csv_header_with_a_column_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response,prompt\n1,2,3\n")
    assert "'prompt' more than once" in refused(tmp_path / "a.csv").problem
    twice = pa.table([["1"], ["2"], ["3"]], names=["prompt", "response", "prompt"])
    pq.write_table(twice, tmp_path / "a.parquet")
    assert "'prompt' more than once" in refused(tmp_path / "a.parquet").problem


def test_parquet_values_that_are_no_text_are_quarantined(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"\xff", b"fine"]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    responses = pa.array(["1", "2", None])
    pq.write_table(pa.table({"prompt": text, "response": responses}), tmp_path / "a.parquet")
    samples, quarantine = ingested(tmp_path / "a.parquet")
    assert samples["prompt"].to_list() == ["ok"]
    assert quarantine.select("row", "field", "reason").rows() == [
        (2, "prompt", "the field is not valid UTF-8"),
        (3, "response", "the field is null, not a string"),
    ]
    pq.write_table(pa.table({"prompt": [1], "response": [b"x"]}), tmp_path / "b.parquet")
    _, quarantine = ingested(tmp_path / "b.parquet")
    assert quarantine["reason"].to_list() == ["the field is a number, not a string"]


def test_parquet_values_that_python_has_none_for_are_quarantined(tmp_path: Path) -> None:
    late = pa.array([1 << 62]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"prompt": late, "response": ["x"]}), tmp_path / "a.parquet")
    _, quarantine = ingested(tmp_path / "a.parquet")
    assert "the field is of type" in quarantine["reason"][0]
    assert "timestamp[" in quarantine["excerpt"][0]

    zone = pa.array([1], pa.timestamp("us", "Nowhere/Atall"))
    pq.write_table(pa.table({"prompt": zone, "response": ["x"]}), tmp_path / "b.parquet")
    _, quarantine = ingested(tmp_path / "b.parquet")
    assert "the field is of type" in quarantine["reason"][0]


def test_messages_of_parquet_are_read_however_the_rows_are_grouped(tmp_path: Path) -> None:
    chats = [
        [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]
        for n in range(1_000)
    ]
    for size in (1, 100, 300, 1_000):
        path = tmp_path / f"{size}.parquet"
        pq.write_table(pa.table({"messages": chats}), path, row_group_size=size)
        samples, quarantine = ingested(path, Columns(messages="messages"))
        assert samples["response"].to_list() == [f"a{n}" for n in range(1_000)]
        assert len(quarantine) == 0


def test_a_column_that_packs_well_is_no_harm(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": [f"{n * 7919 % 1_000_003:x}" * 3 for n in range(600_000)],
            "response": [str(n) for n in range(600_000)],
            "source": pa.array(["a source of a long name"] * 600_000),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert sum(1 for _ in read_parquet(path, "a", Asked(tuple(table.column_names)), 0)) == 600_000


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (pa.array([0.1, None, 1.0, float("nan")], pa.float32()), ["0.1", None, "1", None]),
        (pa.array([0, 1, None], pa.decimal128(10, 0)), ["0", "1", None]),
        (pa.array([Decimal("0.50"), Decimal("100.00")]), ["0.5", "100"]),
    ],
)
def test_labels_of_parquet_that_are_numbers_are_text_as_people_write_it(tmp_path, labels, texts):
    rows = [str(n) for n in range(len(labels))]
    table = pa.table({"prompt": rows, "response": rows, "label": labels})
    pq.write_table(table, tmp_path / "a.parquet")
    samples, _ = ingested(tmp_path / "a.parquet", Columns(label="label"))
    assert samples["label"].to_list() == texts


def test_what_is_nested_too_deep_to_be_written_has_an_excerpt() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert raw_rows.excerpt(value) == "[[[[[[[...]]]]]]]"


def test_excerpts_are_short_and_printable() -> None:
    assert raw_rows.excerpt("a\0\ud800" + "b" * 500) == "a\\x00\\ud800" + "b" * 189
    assert raw_rows.excerpt(b"\xff" + b"c" * 500)[:6] == "\\xffcc"
    assert len(raw_rows.excerpt(["x"] * 900)) == 200
