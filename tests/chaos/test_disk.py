"""A disk that is full, or may not be written: the run says so and loses nothing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.chaos.undisturbed import check_same, leftovers


def mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.decode().strip()}")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A folder that is a disk of its own with so much room."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "influcoder-chaos", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def retry(home: Path) -> tiny_home.Refreshed:
    """What `influcoder run --retry` does."""
    Workspace.open(home).store.forget_failures()
    return tiny_home.refresh(home)


@pytest.mark.parametrize("kilobytes", [64, 1024])
def test_a_full_disk_fails_the_run_and_with_room_the_next_one_ends_it(
    new_home, undisturbed, kilobytes
):
    data = new_home / "data"
    with small_disk(data, kilobytes):
        failures = tiny_home.refresh(new_home).failures
        assert failures
        assert "No space left" in "\n".join(failures)
        assert leftovers(new_home) == []
        mount("-o", "remount,size=1g", data)
        assert retry(new_home).failures == []
        check_same(new_home, undisturbed.outcome)


def test_a_folder_that_may_not_be_written_is_named(home, undisturbed):
    data = home / "data"
    kept = data.rename(home / "kept")
    with small_disk(data, 1 << 20):
        subprocess.run(["cp", "-a", f"{kept}/.", str(data)], check=True)
        tiny_home.append_row(home / "corpus" / "a.jsonl", {"prompt": "x", "response": "y ."})
        mount("-o", "remount,ro", data)
        failures = tiny_home.refresh(home).failures
        assert failures
        assert "Read-only file system" in "\n".join(failures)
        assert str(data) in "\n".join(failures)
        mount("-o", "remount,rw", data)
        assert retry(home).failures == []
        assert tiny_home.plan(home) == []
