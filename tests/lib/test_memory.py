"""How much memory a process has held, in bytes."""

import multiprocessing
from pathlib import Path

import pytest

from influcoder_lib import memory

SIZE = 1 << 28


def grown(status: Path) -> int:
    """By how much the peak of this process, as `status` or else the system tells it, grows with
    SIZE bytes that are written to."""
    memory._STATUS = status
    before = memory.peak()
    held = bytearray(b"x") * SIZE
    return memory.peak() - before if held else 0


@pytest.mark.parametrize("is_linux", [True, False])
def test_the_peak_grows_by_what_is_held_in_bytes(tmp_path, is_linux):
    status = memory._STATUS if is_linux else tmp_path / "there is none"
    # A fork of this process, which has threads, may hang, and a spawned one inherits its peak.
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert SIZE / 2 < pool.apply(grown, (status,)) < 2 * SIZE


def test_what_the_process_had_that_started_this_one_does_not_count():
    held = bytearray(b"x") * SIZE
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(memory.peak) < len(held) < memory.peak()
