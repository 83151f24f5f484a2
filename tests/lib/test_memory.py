"""How much memory a process has held, in bytes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
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
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        assert SIZE / 2 < pool.submit(grown, status).result() < 2 * SIZE


def test_what_the_process_had_that_started_this_one_does_not_count():
    held = bytearray(b"x") * SIZE
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(memory.peak).result() < len(held) < memory.peak()
