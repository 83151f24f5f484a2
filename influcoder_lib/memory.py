"""Giving memory back: what the allocator keeps after a heavy step.

Batches of ever new shapes leave holes in the heap that no later batch fits; returned after each
batch, they do not add up. It costs about an eighth of a batch's time.
"""

import ctypes
import resource
import sys

# What getrusage counts the peak in: bytes on macOS, KiB elsewhere.
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def peak() -> int:
    """The most memory that this process has had at a time, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


def release() -> None:
    """Return freed heap to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
