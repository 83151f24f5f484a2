"""Grad-Sim: the teacher's own gradient on every sample. Exact for what it measures, and slow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings

# Features (n, D) of samples in their order, without those of samples that have none.
Features = Callable[[Sequence[Sample]], NDArray[np.float16]]


@dataclass(frozen=True)
class GradientCosine:
    """Cosine of gradient features; `mean` (D,), subtracted from both sides first, may be absent.

    `features` gives the unit features (n, D) of samples, in their order.
    """

    features: Features
    mean: NDArray[np.float32] | None = None
    name: str = "Grad-Sim"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32 in [-1, 1] up to rounding.

        Raises:
            DataError: a sample has no feature.
        """
        if not queries or not candidates:
            return np.zeros((len(queries), len(candidates)), dtype=np.float32)
        sides = [features_of(self.features, each) for each in (queries, candidates)]
        if self.mean is not None:
            sides = [rankings.centre(each, self.mean) for each in sides]
        return rankings.influence(*sides)


def features_of(features: Features, samples: Sequence[Sample]) -> NDArray[np.float16]:
    """Features (n, D) of all the samples.

    Raises:
        DataError: a sample has none.
    """
    found = features(samples)
    if len(found) != len(samples):
        raise DataError(
            f"{len(samples) - len(found)} of {len(samples)} samples have no gradient.",
            fix="leave out samples that the teacher cannot read",
        )
    return found
