"""Small files are written whole or not at all."""

from pathlib import Path

import pytest

from influcoder_lib import atomic
from influcoder_lib.atomic import write_atomically
from influcoder_lib.errors import StoreError


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
