"""Giving memory back: what Python and the allocator keep after a heavy step."""

import ctypes
import gc


def release() -> None:
    """Collect garbage and return freed heap to the system, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
