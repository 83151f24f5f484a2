"""How much memory a process has held, in bytes."""

import multiprocessing

import pytest

from influcoder_lib import memory

SIZE = 1 << 28


def grown() -> int:
    """By how much the peak of this process grows with SIZE bytes that are written to."""
    before = memory.peak()
    held = bytearray(b"x") * SIZE
    return memory.peak() - before if held else 0


@pytest.mark.parametrize("is_linux", [True, False])
def test_the_peak_grows_by_what_is_held_in_bytes(monkeypatch, tmp_path, is_linux):
    if not is_linux:
        monkeypatch.setattr(memory, "_STATUS", tmp_path / "there is none")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert SIZE / 2 < pool.apply(grown) < 2 * SIZE


def test_what_the_process_had_that_started_this_one_does_not_count():
    held = bytearray(b"x") * SIZE
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(memory.peak) < len(held) < memory.peak()
