"""Giving memory back: what the allocator keeps after a heavy step."""

import ctypes


def release() -> None:
    """Return freed heap to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
