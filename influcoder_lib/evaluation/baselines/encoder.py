"""Any text encoder as a predictor: the cosine of its vectors, before or after distillation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample


class Encodes(Protocol):
    """What is asked of an encoder, see `InfluenceEncoder`; its vectors need no unit length."""

    def encode(self, samples: Sequence[Sample]) -> NDArray[Any]:
        """Vectors (N, d) of candidates, of any float dtype."""
        ...

    def encode_queries(self, samples: Sequence[Sample], resemblance: float = 0.0) -> NDArray[Any]:
        """Vectors (N, d) of queries, for scores with this share of plain resemblance."""
        ...


@dataclass(frozen=True)
class EncoderCosine:
    """Cosine of query and candidate vectors; the encoder's vectors need not be of unit length.

    `resemblance` is the share that plain resemblance is to have in a score, of an encoder that
    tells it from influence (`KernelHead`).
    """

    encoder: Encodes
    name: str = "encoder"
    resemblance: float = 0.0

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32 in [-1, 1] up to rounding.

        Raises:
            DataError: a vector is zero or holds a number that is not finite.
        """
        if not queries or not candidates:
            return np.zeros((len(queries), len(candidates)), dtype=np.float32)
        left = self._units(self.encoder.encode_queries(queries, self.resemblance), queries)
        return left @ self._units(self.encoder.encode(candidates), candidates).T

    def _units(self, given: NDArray[Any], samples: Sequence[Sample]) -> NDArray[np.float32]:
        vectors = np.asarray(given, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise DataError(
                f"The {self.name} gave {len(bad)} vectors that have no direction.",
                where=f"first for sample {samples[bad[0]].sample_id}",
                allowed="finite vectors that are not zero",
            )
        return vectors / norms
