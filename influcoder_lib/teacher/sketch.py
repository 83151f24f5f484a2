"""What a gradient is compressed with, layer by layer so that the whole of it never exists.

CountSketch (Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", 2002): every
coordinate goes to one of D buckets with a random sign. The map is linear and keeps inner products
in expectation; the variance of a cosine is about 1/D.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from influcoder_lib import fingerprint


class Sketch(Protocol):
    """What is asked of a compression."""

    @property
    def dimensions(self) -> int:
        """How many numbers D a sample keeps."""
        ...

    def empty(self, samples: int, device: torch.device) -> Tensor:
        """Accumulator for `add`: zeros (D, samples) float32."""
        ...

    def add(self, accumulator: Tensor, name: str, gradients: Tensor) -> None:
        """Add one layer: gradients (samples, ...) float32 into accumulator (D, samples)."""
        ...

    def features(self, rows: Tensor) -> Tensor:
        """Features (n, D) float32 of accumulated rows (n, D), all finite and none zero."""
        ...


class CountSketch:
    """Adds the gradients of named layers into D buckets a sample.

    Buckets and signs of a layer come from its name and the seed, so they are never stored and do
    not depend on which layers came before. They are kept in memory as long as the sketch is.
    """

    def __init__(self, dimensions: int, seed: int) -> None:
        self.dimensions = dimensions
        self.seed = seed
        self._hashes: dict[tuple[str, int, str], tuple[Tensor, Tensor]] = {}
        self._ordered: dict[tuple[str, int, str], tuple[Tensor, Tensor, Tensor]] = {}

    def empty(self, samples: int, device: torch.device) -> Tensor:
        """Accumulator for `add`: zeros (D, samples) float32."""
        return torch.zeros(self.dimensions, samples, device=device)

    def add(self, accumulator: Tensor, name: str, gradients: Tensor) -> None:
        """Add one layer: gradients (samples, ...) float32 into accumulator (D, samples)."""
        if accumulator.is_cuda:
            self.add_by_bucket(accumulator, name, gradients)
            return
        flat = gradients.reshape(len(gradients), -1)
        buckets, signs = self.hashes(name, flat.shape[1], str(accumulator.device))
        accumulator.index_add_(0, buckets, flat.T * signs[:, None])

    def add_by_bucket(self, accumulator: Tensor, name: str, gradients: Tensor) -> None:
        """What `add` does, of the same shapes, one bucket's coordinates after another: a GPU adds
        to buckets in any order, or else, sorting them each time, slowly."""
        flat = gradients.reshape(len(gradients), -1)
        order, signs, bounds = self._by_bucket(name, flat.shape[1], str(accumulator.device))
        signed = flat.T[order] * signs[:, None]
        accumulator += torch.segment_reduce(signed, "sum", offsets=bounds, axis=0)

    def features(self, rows: Tensor) -> Tensor:
        """Unit rows (n, D) float32 of accumulated rows (n, D), of which none is zero."""
        return rows / rows.norm(dim=1, keepdim=True)

    def hashes(self, name: str, coordinates: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Bucket (P,) int64 and sign (P,) float32 of every coordinate of a layer."""
        key = name, coordinates, device
        if key not in self._hashes:
            self._hashes[key] = self._drawn(name, coordinates, device)
        return self._hashes[key]

    def _by_bucket(self, name: str, coordinates: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (P,) int64 of a layer, one bucket after another, their signs (P,) float32,
        and where each bucket begins, and the last one ends: (D + 1,) int64."""
        key = name, coordinates, device
        if key not in self._ordered:
            buckets, signs = self._drawn(*key)
            order = torch.argsort(buckets, stable=True)
            bounds = torch.searchsorted(
                buckets[order], torch.arange(self.dimensions + 1, device=buckets.device)
            )
            self._ordered[key] = order, signs[order], bounds
        return self._ordered[key]

    def _drawn(self, name: str, coordinates: int, device: str) -> tuple[Tensor, Tensor]:
        key = int(fingerprint.of_text("count-sketch", str(self.seed), name), 16)
        # random_raw is the raw Philox stream, which numpy keeps stable across versions.
        raw = np.random.Philox(key=key).random_raw(coordinates)
        buckets = torch.from_numpy((raw >> np.uint64(1)).astype(np.int64) % self.dimensions)
        signs = torch.from_numpy(1.0 - 2.0 * (raw & np.uint64(1)).astype(np.float32))
        return buckets.to(device), signs.to(device)
