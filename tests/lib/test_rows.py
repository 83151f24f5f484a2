"""Vectors by sample id: what is appended is found again, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from influcoder_lib import fingerprint, rows
from influcoder_lib.errors import DamageError, StoreError
from influcoder_lib.rows import RowStore


def ids(count: int, kind: str = "") -> list[str]:
    return [fingerprint.of_text(kind, str(n)) for n in range(count)]


def vectors(count: int, seed: int = 0, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float16)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 5), max_size=4), st.randoms())
def test_rows_come_back_in_the_order_asked_for(tmp_path_factory, sizes, random):
    folder = tmp_path_factory.mktemp("rows")
    store, expected = RowStore(folder), {}
    for segment, size in enumerate(sizes):
        names, values = ids(size, str(segment)), vectors(size, segment)
        store.append(names, values)
        expected |= dict(zip(names, values, strict=True))
    asked = list(expected) * 2
    random.shuffle(asked)
    for each in (store, RowStore(folder)):
        assert len(each) == len(expected)
        assert all(name in each for name in expected)
        found = each.take(asked)
        assert len(found) == len(asked)
        assert all(np.array_equal(row, expected[n]) for row, n in zip(found, asked, strict=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_dtype_is_kept(tmp_path, dtype):
    values = np.arange(8, dtype=dtype).reshape(4, 2).T
    RowStore(tmp_path).append(ids(2), values)
    found = RowStore(tmp_path).take(ids(2))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


def test_a_missing_folder_is_an_empty_store_and_is_made_on_demand(tmp_path):
    store = RowStore(tmp_path / "not" / "there")
    assert len(store) == 0
    assert ids(1)[0] not in store
    assert store.take([]).shape == (0, 0)
    store.append(ids(1), vectors(1))
    assert ids(1)[0] in RowStore(tmp_path / "not" / "there")


def test_an_unknown_sample_is_a_key_error(tmp_path):
    store = RowStore(tmp_path)
    store.append(ids(2), vectors(2))
    with pytest.raises(KeyError):
        store.take([*ids(2), ids(1, "other")[0]])


def test_the_same_segment_twice_is_one_file(tmp_path):
    for _ in range(2):
        RowStore(tmp_path).append(ids(3), vectors(3))
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(RowStore(tmp_path).take(ids(3)), vectors(3))


def test_a_segment_is_written_whole_or_not_at_all(tmp_path, monkeypatch: pytest.MonkeyPatch):
    RowStore(tmp_path).append(ids(2), vectors(2))

    def torn(tensors: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half a segm")
        raise OSError("no space left on device")

    monkeypatch.setattr(rows, "save_file", torn)
    with pytest.raises(OSError, match="no space left"):
        RowStore(tmp_path).append(ids(3, "more"), vectors(3))
    assert len(list(tmp_path.iterdir())) == 1
    again = RowStore(tmp_path)
    assert len(again) == 2
    np.testing.assert_array_equal(again.take(ids(2)), vectors(2))


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_segment_that_cannot_be_read_is_named_and_removed(tmp_path, kept):
    RowStore(tmp_path).append(ids(3), vectors(3))
    segment = next(tmp_path.iterdir())
    segment.write_bytes(segment.read_bytes()[:kept])
    with pytest.raises(DamageError) as caught:
        RowStore(tmp_path)
    assert "cannot be read" in str(caught.value)
    assert str(segment) in str(caught.value)
    assert len(RowStore(tmp_path)) == 0


@pytest.mark.parametrize("place", [-1, -40])
def test_a_flipped_bit_in_a_segment_is_found_when_its_rows_are_asked_for(tmp_path, place):
    RowStore(tmp_path).append(ids(8), vectors(8))
    segment = next(tmp_path.iterdir())
    content = bytearray(segment.read_bytes())
    content[place] ^= 1
    segment.write_bytes(content)
    store = RowStore(tmp_path)
    with pytest.raises(DamageError) as caught:
        store.take(ids(1))
    assert str(segment) in str(caught.value)
    store.catch_up()
    assert len(store) == 0


def test_segments_that_carry_no_content_hash_are_still_read(tmp_path):
    RowStore(tmp_path).append(ids(3), vectors(3))
    segment = next(tmp_path.iterdir())
    save_file(load_file(segment), segment)
    np.testing.assert_array_equal(RowStore(tmp_path).take(ids(3)), vectors(3))


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of so many segments that they are written down in one file."""
    monkeypatch.setattr(rows, "_MANY", 3)
    store = RowStore(tmp_path)
    for segment in range(4):
        store.append(ids(4, str(segment)), vectors(4, segment), np.arange(4) == segment)
    RowStore(tmp_path)
    return tmp_path


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RowStore, list[str]]:
    """A store, and the names of the segments that opening it read."""
    read: list[str] = []

    def watched(path, **options):
        read.append(Path(path).name)
        return rows_safe_open(path, **options)

    rows_safe_open = rows.safe_open
    with monkeypatch.context() as patch:
        patch.setattr(rows, "safe_open", watched)
        return RowStore(folder), [name for name in read if not name.startswith(".")]


def same_rows(store: RowStore, segments: range) -> None:
    for segment in segments:
        np.testing.assert_array_equal(store.take(ids(4, str(segment))), vectors(4, segment))


def test_many_segments_are_known_from_one_file(many, monkeypatch):
    store, read = opened(many, monkeypatch)
    assert read == []
    assert len(store) == 16
    same_rows(store, range(4))
    assert store.truncated([name for segment in range(4) for name in ids(4, str(segment))]) == 4


def test_segments_that_came_later_are_read_beside_it(many, monkeypatch):
    RowStore(many).append(ids(4, "4"), vectors(4, 4))
    store, read = opened(many, monkeypatch)
    assert len(read) == 1
    same_rows(store, range(5))


def test_writing_down_costs_in_proportion_to_the_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_MANY", 3)
    written: list[int] = []

    def counted(path: Path, parts: list) -> None:
        written.append(sum(len(each.names) for each in parts))
        write_ids(path, parts)

    write_ids = rows._write_ids
    monkeypatch.setattr(rows, "_write_ids", counted)
    store = RowStore(tmp_path)
    for segment in range(300):
        store.append(ids(1, str(segment)), vectors(1))
        store.catch_up()
    assert sum(written) < 10 * 300
    _, read = opened(tmp_path, monkeypatch)
    assert len(read) <= 300 / 8


@pytest.mark.parametrize("change", ["deleted", "cut", "rewritten", "garbage"])
def test_what_is_written_down_is_not_believed_against_the_segments(many, monkeypatch, change):
    memory = next(many.glob(".segments*"))
    segment = sorted(many.glob("[!.]*"))[0]
    if change == "deleted":
        segment.unlink()
    elif change == "cut":
        segment.write_bytes(segment.read_bytes()[:-1])
        with pytest.raises(DamageError, match="cannot be read"):
            RowStore(many)
    elif change == "rewritten":
        memory.write_bytes(b"")
    else:
        memory.write_bytes(memory.read_bytes()[:-9])
    store, read = opened(many, monkeypatch)
    assert read
    lost = 0 if segment.exists() else 4
    assert len(store) == 16 - lost
    again, read = opened(many, monkeypatch)
    assert read == []
    assert len(again) == 16 - lost


def test_a_store_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    store = RowStore(tmp_path)
    for segment in range(4):
        store.append(ids(4, str(segment)), vectors(4, segment))
    monkeypatch.setattr(rows, "_MANY", 3)

    def refused(path: Path, data: bytes) -> None:
        raise StoreError("The data folder cannot be written.")

    monkeypatch.setattr(rows, "write_atomically", refused)
    same_rows(RowStore(tmp_path), range(4))
