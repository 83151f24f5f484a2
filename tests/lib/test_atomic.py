"""Small files are written whole or not at all."""

import errno
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from influcoder_lib import atomic
from influcoder_lib.atomic import write_atomically
from influcoder_lib.errors import StoreError
from influcoder_lib.tables import writing


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def broken(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "flush", broken)
        with pytest.raises(StoreError, match="cannot be written: No space left on device"):
            write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(StoreError, match=r"cannot be written: (Not a directory|File exists)"):
        write_atomically(file / "below", b"new")


def test_what_is_being_written_goes_once_its_process_is_gone_and_not_before(tmp_path):
    mine = atomic.part_of(tmp_path / "mine")
    mine.write_text("half")
    script = "import sys; from pathlib import Path; from influcoder_lib import atomic\n"
    script += "part = atomic.part_of(Path(sys.argv[1])); part.mkdir(); (part / 'x').touch()"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "theirs")], check=True)
    (theirs,) = tmp_path.glob(".theirs.*.part")
    assert atomic.sweep(tmp_path) == [theirs]
    assert list(tmp_path.iterdir()) == [mine]


def test_a_folder_that_goes_while_parts_are_looked_for_has_none(tmp_path):
    for name in "abc":
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / ".x.part").touch()
    found = atomic.parts(tmp_path)
    next(found)
    for name in "abc":
        shutil.rmtree(tmp_path / name)
    assert list(found) == []


@pytest.mark.parametrize("error", [None, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_of_two_new_files_of_one_name_the_first_is_there_also_without_hard_links(
    tmp_path, monkeypatch, error
):
    def refused(path: Path, target: Path) -> None:
        raise OSError(error, "Operation not permitted")

    if error:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    assert atomic.write_new(tmp_path / "deep/file", b"one")
    assert not atomic.write_new(tmp_path / "deep/file", b"two")
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"one"]


def test_without_hard_links_a_full_disk_leaves_no_part_of_a_new_file(tmp_path, monkeypatch):
    def refused(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(path: Path) -> None:
        if path.name == "file":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(StoreError, match="No space left"):
        atomic.write_new(tmp_path / "file", b"one")
    assert list(tmp_path.iterdir()) == []


def test_another_trouble_with_a_hard_link_is_an_error(tmp_path, monkeypatch):
    def refused(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    with pytest.raises(StoreError, match="Input/output error"):
        atomic.write_new(tmp_path / "file", b"one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".x.part", "x.part", ".x.1234-9-abcd.part", ".notes.md"])
def test_files_that_others_named_stay(tmp_path, name):
    (tmp_path / name).touch()
    assert atomic.sweep(tmp_path) == []


def test_what_another_machine_is_writing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_lives", lambda process: False)
    own = atomic.part_of(tmp_path / "x")
    monkeypatch.setattr(atomic, "_MACHINE", "0" * 8)
    theirs = atomic.part_of(tmp_path / "x")
    monkeypatch.undo()
    monkeypatch.setattr(atomic, "_lives", lambda process: False)
    for each in (own, theirs):
        each.touch()
    assert atomic.sweep(tmp_path) == [own]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can be longer than 1 MiB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NUMBERS = np.random.default_rng(0).random(1 << 20)


def write_table(path: Path) -> None:
    with writing(path) as table:
        table.add(pl.DataFrame({"numbers": NUMBERS}))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(NUMBERS.tobytes()),
        lambda path: pl.DataFrame({"numbers": NUMBERS}).write_parquet(path),
        lambda path: np.save(path, NUMBERS),
        lambda path: save_file({"numbers": NUMBERS}, path),
        write_table,
    ],
    ids=["python", "polars", "numpy", "safetensors", "table"],
)
def test_a_full_disk_is_known_whatever_library_was_writing(
    tmp_path, small_files, write: Callable[[Path], None]
):
    with pytest.raises(Exception, match=r".") as caught:
        write(tmp_path / "file.npy")
    assert atomic.trouble_of_the_disk(caught.value) is not None


def test_an_error_that_has_nothing_to_do_with_the_disk_is_no_trouble_with_it():
    for error in (ValueError("7 requested and 3 written"), OSError("no model"), KeyError(28)):
        assert atomic.trouble_of_the_disk(error) is None
