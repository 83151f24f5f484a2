"""How much memory this process has held, and giving memory back.

The allocator keeps memory after a heavy step. Batches of ever new shapes leave holes in the heap
that no later batch fits; returned after each batch, they do not add up. It costs about an eighth of
a batch's time.
"""

import ctypes
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """The most memory that this process has held at a time, in bytes."""
    if _STATUS.is_file():
        # Not from getrusage: on Linux a process begins with the peak of the one that started it.
        return int(_STATUS.read_text().split("VmHWM:")[1].split()[0]) << 10
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found << 10


def release() -> None:
    """Return freed heap to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
