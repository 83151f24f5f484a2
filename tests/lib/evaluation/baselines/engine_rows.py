"""The features that a real engine computes, as the baselines take them."""

from collections.abc import Callable, Sequence

import numpy as np

from influcoder_lib.samples import Sample
from influcoder_lib.teacher.gradients import GradientFeatures


def rows_of(engine: GradientFeatures) -> Callable[[Sequence[Sample]], np.ndarray]:
    """Features (n, D) float32 of samples, all of them usable, in their order."""

    def features(samples: Sequence[Sample]) -> np.ndarray:
        rows = np.empty((len(samples), engine.sketch.dimensions), np.float32)
        for batch in engine.features(samples):
            rows[batch.indices] = batch.rows
        return rows

    return features
