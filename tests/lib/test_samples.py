"""Sample tables, partition keys and the search for shards."""

import os
import socket
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
    found, refused, others = find_shards(tmp_path)
    assert (refused, others) == ({}, ["README.md", "x.gz"])
    assert list(found) == ["a.jsonl", "b.csv", "sub.c.parquet", "sub.d.jsonl.gz"]
    assert found["sub.c.parquet"] == tmp_path / "sub" / "c.parquet"


def test_one_file_is_a_corpus_of_one_shard(tmp_path: Path) -> None:
    _touch(tmp_path, "Dolly.parquet")
    only = tmp_path / "Dolly.parquet"
    assert find_shards(only) == ({"dolly.parquet": only}, {}, [])


def _refused(folder: Path) -> dict[str, str]:
    """What is said of each file that cannot be a shard; `good.csv` is one all the same."""
    _touch(folder, "good.csv")
    found = find_shards(folder)
    assert list(found.files) == ["good.csv"]
    return {name: str(error) for name, error in found.refused.items()}


@pytest.mark.parametrize("twins", [("a/b.csv", "a.b.csv"), ("k.csv", "\u212a.csv", "K.csv")])
def test_files_whose_names_collide_are_all_refused_and_named(
    tmp_path: Path, twins: tuple[str, ...]
) -> None:
    _touch(tmp_path, *twins)
    said = _refused(tmp_path)
    assert sorted(said) == sorted(twins)
    for message in said.values():
        assert f"{len(twins)} files make the same partition key" in message
        assert all(name in message for name in twins)


def test_a_name_that_makes_no_key_is_refused_and_shown_without_what_breaks_a_line(
    tmp_path: Path,
) -> None:
    names = ("a\nb.csv", "<b>'x'.csv", "caf\u00e9.csv", "b\u202ecsv.csv", "\udcff.csv", "a b.csv")
    _touch(tmp_path, *names)
    said = _refused(tmp_path)
    assert sorted(said) == sorted(names)
    assert all("name of the shard holds" in message for message in said.values())
    assert "file 'a\\nb.csv'" in said["a\nb.csv"]
    assert "".join(said.values()).replace("\n", "").isprintable()


def test_a_name_too_long_for_what_is_made_of_it_is_refused(tmp_path: Path) -> None:
    deep = "/".join(["folder"] * 40) + "/a.csv"
    _touch(tmp_path, "x" * 240 + ".csv", deep, "y" * 196 + ".csv")
    found = find_shards(tmp_path)
    assert list(found.files) == ["y" * 196 + ".csv"]
    assert "has 244 characters" in str(found.refused["x" * 240 + ".csv"])
    assert "has 285 characters" in str(found.refused[deep])


def test_a_missing_corpus_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="corpus folder does not exist"):
        find_shards(tmp_path / "nowhere")


def test_a_link_to_a_file_of_the_folder_is_a_shard(tmp_path: Path) -> None:
    _touch(tmp_path, "in.csv")
    (tmp_path / "same.csv").symlink_to(tmp_path / "in.csv")
    assert list(find_shards(tmp_path).files) == ["in.csv", "same.csv"]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("../outside.csv", "leaves the corpus folder"),
        ("../elsewhere", "leaves the corpus folder"),
        ("../corpus/../outside.csv", "leaves the corpus folder"),
        ("/dev/zero", "leaves the corpus folder"),
        ("../gone.csv", "leads nowhere (No such file or directory)"),
        ("link.csv", "leads nowhere (Too many levels of symbolic links)"),
        ("folder", "A link to a folder is not followed"),
        (".", "A link to a folder is not followed"),
    ],
)
def test_a_link_that_is_not_followed_is_named_with_its_target(
    tmp_path: Path, target: str, problem: str
) -> None:
    _touch(tmp_path, "outside.csv", "elsewhere/x.csv", "corpus/folder/.hidden")
    (tmp_path / "corpus" / "link.csv").symlink_to(target)
    said = _refused(tmp_path / "corpus")["link.csv"]
    assert problem in said
    assert f"file link.csv, which points to {target}" in said


def test_a_pipe_or_a_device_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.csv"))
    said = _refused(tmp_path)
    assert sorted(said) == ["pipe.jsonl", "socket.csv"]
    assert all("no regular file" in message for message in said.values())


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
