"""How much memory a process has had, in bytes."""

import re
from pathlib import Path

import pytest

from influcoder_lib import memory

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux says it in another place too")
def test_the_peak_is_what_the_system_says_in_bytes():
    kib = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert kib is not None
    assert 0.9 * int(kib[1]) * 1024 <= memory.peak() < 2**42
