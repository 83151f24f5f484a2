"""Tables in blocks: what is written comes back, in the sizes asked for, whole or not at all."""

import weakref

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib import atomic, tables
from influcoder_lib.errors import StoreError
from influcoder_lib.tables import TableReader, load_table, read_blocks, scan_table, writing

SCHEMA = {"name": pl.String, "row": pl.Int64, "score": pl.Float32}


def block(start: int, rows: int) -> pl.DataFrame:
    numbers = range(start, start + rows)
    values = [(None if n % 3 else f"name {n}", n, n / 2) for n in numbers]
    return pl.DataFrame(values, schema=SCHEMA, orient="row")


def write(path, sizes) -> pl.DataFrame:
    """Write blocks of these sizes; returns all rows."""
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    blocks = [block(*each) for each in zip(starts, sizes, strict=True)]
    with writing(path) as table:
        for each in blocks:
            table.add(each)
    assert table.rows == sum(sizes)
    return pl.concat(blocks)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8), st.lists(st.integers(0, 12), max_size=9)
)
@settings(max_examples=60, deadline=None)
def test_rows_come_back_whatever_the_sizes_of_blocks(tmp_path_factory, sizes, asked):
    path = tmp_path_factory.mktemp("tables") / "a.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "GROUP_ROWS", 7)
        rows = write(path, sizes)
    assert pl.concat(read_blocks(path)).equals(rows)
    assert pl.read_parquet(path).equals(rows)
    reader, start = TableReader(path, ["row", "score"]), 0
    for size in asked:
        assert reader.take(size).equals(rows.slice(start, size).select("row", "score"))
        start += size


def test_a_table_without_rows_is_one_empty_block_with_its_columns(tmp_path):
    write(tmp_path / "a.parquet", [0])
    (only,) = read_blocks(tmp_path / "a.parquet")
    assert (only.height, dict(only.schema)) == (0, SCHEMA)
    assert TableReader(tmp_path / "a.parquet", ["row"]).take(3).columns == ["row"]


def test_a_row_group_ends_at_its_rows_or_its_bytes(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [5000] * 5)
    groups = [len(each) for each in read_blocks(tmp_path / "a.parquet")]
    assert groups == [10_000, 10_000, 5000]
    monkeypatch.setattr(tables, "GROUP_BYTES", 1000)
    write(tmp_path / "b.parquet", [200] * 3)
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups == 3


def test_an_empty_block_is_not_kept_where_others_have_the_columns(tmp_path):
    with writing(tmp_path / "a.parquet") as table:
        table.add(block(0, 1))
        empty = block(0, 0)
        kept = weakref.ref(empty)
        table.add(empty)
        del empty
        assert kept() is None
    assert load_table(tmp_path / "a.parquet").equals(block(0, 1))


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?", "[!d]", "{e}"])
def test_a_path_is_a_name_and_no_pattern(tmp_path, name):
    for start, folder in enumerate((name, "a1", "bx", "cx", "e")):
        write(tmp_path / folder / "t.parquet", [start + 1])
    path = tmp_path / name / "t.parquet"
    assert load_table(path).equals(block(0, 1))
    assert load_table(path, ["row"]).columns == ["row"]
    assert scan_table(path).collect().equals(block(0, 1))
    found = scan_table([path, tmp_path / "a1/t.parquet"], include_file_paths="place").collect()
    assert found["place"].to_list() == [str(path)] + 2 * [str(tmp_path / "a1/t.parquet")]


def test_what_a_killed_process_left_of_a_table_is_known_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "GROUP_ROWS", 1)
    with writing(tmp_path / "a.parquet") as table:
        table.add(block(0, 1))
        monkeypatch.setattr(atomic, "_lives", lambda process: False)
        assert atomic.orphans(tmp_path) == list(tmp_path.iterdir()) != []


def test_equal_blocks_give_equal_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, [9000, 300])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_that_is_not_finished_leaves_nothing(tmp_path):
    def stopped():
        with writing(tmp_path / "a.parquet") as table:
            table.add(block(0, 9000))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path / "file" / "a.parquet", [1])
