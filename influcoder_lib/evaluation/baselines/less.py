"""LESS: gradients along a warm-up, those of candidates as Adam would use them.

Xia et al. 2024 (arXiv 2402.04333). Over the checkpoints i of a warm-up (`teacher.warmup`), with
their mean learning rates η_i (section 3.2, "Data selection"),

    influence(q, c) = Σ_i η_i cos(∇loss(q; θ_i), Γ(c; θ_i))

where Γ is the step that Adam would take on the candidate alone, and both are sketched: the paper's
random projection is a CountSketch here, as it is for the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from influcoder_lib.errors import ModelError
from influcoder_lib.evaluation.baselines.gradient import Features, features_of
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import Sketch
from influcoder_lib.teacher.warmup import Checkpoint

EPSILON = 1e-8


@dataclass(frozen=True)
class Stage:
    """A checkpoint's mean learning rate, and what gives unit features (n, D) of queries, which are
    plain gradients, and of candidates, which are Adam's steps (`adam_features`)."""

    learning_rate: float
    queries: Features
    candidates: Features


@dataclass(frozen=True)
class Less:
    """The sum over all stages of learning rate times cosine."""

    stages: Sequence[Stage]
    name: str = "LESS"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32, at most the sum of the learning rates either side of 0.

        Raises:
            DataError: a sample has no feature.
        """
        total = np.zeros((len(queries), len(candidates)), dtype=np.float32)
        if total.size == 0:
            return total
        for stage in self.stages:
            left = features_of(stage.queries, queries)
            right = features_of(stage.candidates, candidates)
            total += np.float32(stage.learning_rate) * rankings.influence(left, right)
        return total


def adam_features(engine: GradientFeatures, checkpoint: Checkpoint) -> GradientFeatures:
    """What gives candidates' features at a checkpoint, of the engine that gives queries'."""
    sketch = AdamSketch(engine.sketch, checkpoint)
    return GradientFeatures(
        engine.target, engine.layers, sketch, engine.spans.window, engine.tokens_per_batch
    )


class AdamSketch:
    """A sketch of Adam's step on each sample's gradient g, instead of g (section 3.1):

        m' = (β1 m + (1 - β1) g) / (1 - β1^t)     v' = (β2 v + (1 - β2) g²) / (1 - β2^t)
        Γ = m' / sqrt(v' + ε)

    with the moments m, v of a checkpoint, t one more than its steps, and ε = 1e-8. It is not
    linear, so a layer's gradients must come at once.
    """

    def __init__(self, sketch: Sketch, checkpoint: Checkpoint) -> None:
        self.sketch = sketch
        self.betas = checkpoint.betas
        self.step = checkpoint.steps + 1
        self.moments = checkpoint.moments()
        self._added: set[str] = set()

    @property
    def dimensions(self) -> int:
        return self.sketch.dimensions

    def empty(self, samples: int, device: torch.device) -> Tensor:
        """Accumulator for `add`: zeros (D, samples) float32."""
        self._added.clear()
        return self.sketch.empty(samples, device)

    def add(self, accumulator: Tensor, name: str, gradients: Tensor) -> None:
        """Add one layer: gradients (samples, ...) float32 into accumulator (D, samples).

        Raises:
            ModelError: the layer was added before.
        """
        if name in self._added:
            raise ModelError(
                f"The layer of {name} is used more than once for a token.",
                allowed="for LESS, decoders that use each layer once",
            )
        self._added.add(name)
        self.sketch.add(accumulator, name, self._step(name, gradients))

    def features(self, rows: Tensor) -> Tensor:
        """Features (n, D) of accumulated rows (n, D)."""
        return self.sketch.features(rows)

    def _step(self, name: str, gradients: Tensor) -> Tensor:
        first, second = (
            self.moments[f"{kind}.{name}"].to(gradients.device) for kind in ("first", "second")
        )
        one, two = self.betas
        mean = (one * first + (1 - one) * gradients) / (1 - one**self.step)
        square = (two * second + (1 - two) * gradients**2) / (1 - two**self.step)
        return mean / torch.sqrt(square + EPSILON)
