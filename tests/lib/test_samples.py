"""Sample tables, partition keys and the search for shards."""

from pathlib import Path

import polars as pl
import pytest

from influcoder_lib.errors import DataError
from influcoder_lib.samples import (
    SAMPLE_SCHEMA,
    Sample,
    find_shards,
    partition_key,
    read_sample_blocks,
    read_samples,
    to_samples,
)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


@pytest.mark.parametrize(
    ("relative", "key"),
    [
        ("a.jsonl", "a.jsonl"),
        ("New/2024-01_B.JSONL.gz", "new.2024-01_b.jsonl.gz"),
        ("x/y/z.csv", "x.y.z.csv"),
    ],
)
def test_partition_key_is_the_path_in_lower_case_with_dots(relative: str, key: str) -> None:
    assert partition_key(relative) == key


@pytest.mark.parametrize(
    ("relative", "odd"), [("a,b.csv", "','"), ("café.csv", "'é'"), ("a b.csv", "' '"), ("", "")]
)
def test_partition_key_refuses_other_characters_and_names_them(relative: str, odd: str) -> None:
    with pytest.raises(DataError, match="name of the shard holds") as caught:
        partition_key(relative)
    assert odd in caught.value.problem
    assert caught.value.where == f"file {relative}"


def test_shards_are_found_in_the_order_of_their_keys(tmp_path: Path) -> None:
    _touch(tmp_path, "b.csv", "A.JSONL", "sub/c.parquet", "sub/d.jsonl.gz")
    _touch(tmp_path, "README.md", ".hidden.csv", ".git/e.csv", "x.gz")
    found = find_shards(tmp_path)
    assert list(found) == ["a.jsonl", "b.csv", "sub.c.parquet", "sub.d.jsonl.gz"]
    assert found["sub.c.parquet"] == tmp_path / "sub" / "c.parquet"


def test_one_file_is_a_corpus_of_one_shard(tmp_path: Path) -> None:
    _touch(tmp_path, "Dolly.parquet")
    assert find_shards(tmp_path / "Dolly.parquet") == {"dolly.parquet": tmp_path / "Dolly.parquet"}


def test_colliding_names_are_an_error_that_names_both(tmp_path: Path) -> None:
    _touch(tmp_path, "a/b.csv", "a.b.csv")
    with pytest.raises(DataError, match=r"same partition key 'a\.b\.csv'") as caught:
        find_shards(tmp_path)
    assert "a/b.csv" in caught.value.where
    assert "a.b.csv" in caught.value.where


def test_a_missing_corpus_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="corpus folder does not exist"):
        find_shards(tmp_path / "nowhere")


def test_links_may_not_leave_the_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "outside.csv", "corpus/in.csv", "elsewhere/x.csv")
    corpus = tmp_path / "corpus"
    (corpus / "same.csv").symlink_to(corpus / "in.csv")
    assert list(find_shards(corpus)) == ["in.csv", "same.csv"]
    link = corpus / "out.csv"
    for target in (tmp_path / "outside.csv", tmp_path / "elsewhere"):
        link.symlink_to(target)
        with pytest.raises(DataError, match="leaves the corpus folder"):
            find_shards(corpus)
        link.unlink()
    link.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="leads nowhere"):
        find_shards(corpus)


def test_a_sample_table_is_read_back_as_samples(tmp_path: Path) -> None:
    frame = pl.DataFrame([["i", "p", "r", None, "s", "f", 1]], schema=SAMPLE_SCHEMA, orient="row")
    frame.write_parquet(tmp_path / "s.parquet")
    again = read_samples(tmp_path / "s.parquet")
    assert again.equals(frame)
    assert to_samples(again) == [Sample("i", "p", "r")]


def test_a_sample_table_is_read_in_its_row_groups(tmp_path: Path) -> None:
    rows = [[str(n), "p", "r", None, "s", "f", n] for n in range(5)]
    frame = pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")
    frame.write_parquet(tmp_path / "s.parquet", row_group_size=2)
    blocks = list(read_sample_blocks(tmp_path / "s.parquet"))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert pl.concat(blocks).equals(frame)
    frame.clear().write_parquet(tmp_path / "none.parquet")
    (only,) = read_sample_blocks(tmp_path / "none.parquet")
    assert (only.height, only.schema) == (0, SAMPLE_SCHEMA)


def test_what_is_no_sample_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "none.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "cut.parquet")
    pl.DataFrame({"prompt": ["a"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no sample table"):
        read_samples(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column 'sample_id'"):
        to_samples(pl.DataFrame({"prompt": ["a"]}))
    nulls = pl.DataFrame({"sample_id": ["a"], "prompt": [None], "response": ["r"]})
    with pytest.raises(DataError, match="'prompt' holds nulls"):
        to_samples(nulls)
