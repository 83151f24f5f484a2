"""Embedding samples with resume: what is stored is reused, the rest is appended block by block."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Protocol

import numpy as np

from influcoder_lib.curation import index
from influcoder_lib.rows import RowStore
from influcoder_lib.samples import Role, Sample

# A killed run loses at most about so many vectors.
_BLOCK = 1024


class Reads(Protocol):
    """What is asked of an encoder, see `InfluenceEncoder`."""

    def read(
        self, samples: Sequence[Sample], role: Role = "candidate", resemblance: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (n, d) float32 of the samples, and which were cut to fit: (n,) bool."""
        ...


class StoredVectors:
    """An encoder whose vectors of candidates are kept in a row store, so that a sample is embedded
    once. Queries are few: they are computed when they are asked for, and remembered.

    `open_encoder` is called only if something has to be computed, or of an empty shard to know the
    width; `computed` counts the samples that were computed.
    """

    def __init__(
        self, open_encoder: Callable[[], Reads], rows: RowStore, say: Callable[[str], None]
    ) -> None:
        self.open_encoder = open_encoder
        self.rows = rows
        self.say = say
        self.computed = 0
        self._queries: dict[tuple[float, tuple[str, ...]], np.ndarray] = {}

    def encode(self, samples: Sequence[Sample]) -> np.ndarray:
        """Unit vectors (N, d) float32 of candidates, in their order; (0, d) of none."""
        self.embed([samples], len(samples))
        return self.vectors([each.sample_id for each in samples])

    def encode_queries(self, samples: Sequence[Sample], resemblance: float = 0.0) -> np.ndarray:
        """Unit vectors (N, d) float32 of queries, in their order; (0, d) of none."""
        asked = resemblance, tuple(each.sample_id for each in samples)
        if asked not in self._queries:
            self._queries[asked] = self.open_encoder().read(samples, "query", resemblance)[0]
        return self._queries[asked]

    def embed(self, blocks: Iterable[Sequence[Sample]], total: int) -> None:
        """Embed and store those of `total` samples, given in blocks, that have no vector yet."""
        begin, before = time.monotonic(), self.computed
        for missing, seen in self._missing(blocks):
            vectors, truncated = self.open_encoder().read(missing)
            ids = [each.sample_id for each in missing]
            self.rows.append(ids, index.narrow(vectors), truncated)
            self.computed += len(missing)
            done = self.computed - before
            rate = done / (time.monotonic() - begin)
            left = (total - seen) / rate
            self.say(f"embedded {done}, {rate:,.0f} samples/s, at most {left:.0f} s left")

    def vectors(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, d) float32 of samples that were embedded before; (0, d) of none."""
        return index.widen(self.stored(sample_ids))

    def stored(self, sample_ids: Sequence[str]) -> np.ndarray:
        """The same as they are stored: (N, d) float16."""
        if not sample_ids:
            return index.narrow(self.open_encoder().read([])[0])
        return self.rows.take(sample_ids)

    def truncated(self, sample_ids: Sequence[str]) -> int:
        """How many of the samples, all embedded before, are longer than the encoder's window."""
        return self.rows.truncated(sample_ids)

    def _missing(self, blocks: Iterable[Sequence[Sample]]) -> Iterator[tuple[list[Sample], int]]:
        """Samples without a vector, each once, about _BLOCK at a time; and how many were seen."""
        held: dict[str, Sample] = {}
        seen = 0
        for block in blocks:
            for start in range(0, len(block), _BLOCK):
                piece = block[start : start + _BLOCK]
                known = self.rows.known([each.sample_id for each in piece])
                held |= {each.sample_id: each for each in compress(piece, ~known)}
                seen += len(piece)
                if len(held) >= _BLOCK:
                    yield list(held.values()), seen
                    held = {}
        if held:
            yield list(held.values()), seen
