"""Random scores: what no knowledge at all achieves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from influcoder_lib.fingerprint import draw_key
from influcoder_lib.samples import Sample


@dataclass(frozen=True)
class Chance:
    """Uniform scores in [0, 1) that depend on the seed and the two sample ids, on nothing else.

    A pair keeps its score whatever else is scored beside it and in whatever order.
    """

    seed: int
    name: str = "random"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32 in [0, 1)."""
        rows = _keys(self.seed, queries)
        # Mixing one side first keeps (query, candidate) apart from (candidate, query).
        mixed = _mix(_mix(rows)[:, None] ^ _keys(self.seed, candidates)[None, :])
        # 24 bits are all that a float32 below 1 can hold evenly.
        return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def _keys(seed: int, samples: Sequence[Sample]) -> NDArray[np.uint64]:
    return np.array([draw_key(seed, sample.sample_id) for sample in samples], dtype=np.uint64)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014), modulo 2**64."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
