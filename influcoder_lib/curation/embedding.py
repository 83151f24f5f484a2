"""Embedding samples with resume: what is stored is reused, the rest is appended block by block."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from influcoder_lib.rows import RowStore
from influcoder_lib.samples import Sample

_BLOCK = 1024


class Encodes(Protocol):
    """What is asked of an encoder: samples in, unit vectors (n, d) float32 out."""

    def encode(self, samples: Sequence[Sample]) -> np.ndarray: ...

    def truncated(self, samples: Sequence[Sample]) -> np.ndarray: ...


class StoredVectors:
    """An encoder whose vectors are kept in a row store, so that a sample is embedded once.

    `open_encoder` is called only if something has to be computed; `computed` counts the samples
    that were.
    """

    def __init__(
        self, open_encoder: Callable[[], Encodes], rows: RowStore, say: Callable[[str], None]
    ) -> None:
        self.open_encoder = open_encoder
        self.rows = rows
        self.say = say
        self.computed = 0

    def encode(self, samples: Sequence[Sample]) -> np.ndarray:
        """Unit vectors (N, d) float32 of the samples, in their order; (0, d) of none."""
        if not samples:
            return self.open_encoder().encode(samples)
        new = {each.sample_id: each for each in samples if each.sample_id not in self.rows}
        missing = list(new.values())
        begin = time.monotonic()
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            encoder = self.open_encoder()
            ids = [each.sample_id for each in block]
            self.rows.append(ids, encoder.encode(block), encoder.truncated(block))
            done = start + len(block)
            rate = done / (time.monotonic() - begin)
            left = (len(missing) - done) / rate
            self.say(f"embedded {done} of {len(missing)}, {rate:,.0f} samples/s, {left:.0f} s left")
        self.computed += len(missing)
        return self.rows.take([each.sample_id for each in samples])

    def truncated(self, samples: Sequence[Sample]) -> int:
        """How many of the samples, all encoded before, are longer than the encoder's window."""
        return self.rows.truncated([each.sample_id for each in samples])
