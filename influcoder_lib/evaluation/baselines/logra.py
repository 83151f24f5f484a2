"""LoGra: influence functions on gradients that two small matrices a layer project.

Choe et al. 2024 (arXiv 2405.13954, section 3). A linear layer's gradient is Σ_t δ_t x_tᵀ over
tokens t, with input x and gradient δ at its output; LoGra keeps g = P_out (Σ_t δ_t x_tᵀ) P_inᵀ of
it. With P_in as the frozen factor A of a fresh adapter, its dL/dB is Σ_t δ_t (P_in x_t)ᵀ, so the
teacher's engine gives all but P_out, which takes the place of the sketch. Then

    influence(q, c) = Σ_layers g_qᵀ (H + λI)⁻¹ g_c

with the layer's own block H = mean g gᵀ over the candidates, which stand for the training data: the
empirical Fisher matrix, and λ a tenth of H's mean eigenvalue, as is customary (Grosse et al. 2023,
arXiv 2308.03296). The scale of a layer's projection makes no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from influcoder_lib.errors import DataError
from influcoder_lib.evaluation.baselines.gradient import Features, features_of
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel
from influcoder_lib.teacher.adapters import AdaptedLayer, d_out, fresh_adapter, generator_of
from influcoder_lib.teacher.gradients import GradientFeatures

_DAMPING = 0.1


@dataclass(frozen=True)
class Logra:
    """Influence from projected gradients: `features` gives them (n, D), layer after layer, `width`
    numbers each."""

    features: Features
    width: int
    name: str = "LoGra"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32; a candidate's depend on what the other candidates are.

        Raises:
            DataError: a sample has no gradient, or one that is not finite.
        """
        total = np.zeros((len(queries), len(candidates)), dtype=np.float64)
        if total.size:
            left, right = (features_of(self.features, each) for each in (queries, candidates))
            if not (np.isfinite(left).all() and np.isfinite(right).all()):
                raise DataError("A projected gradient is not finite.", where=self.name)
            for start in range(0, left.shape[1], self.width):
                layer = slice(start, start + self.width)
                total += _influence(left[:, layer], right[:, layer])
        return total.astype(np.float32)


def _influence(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.float64]:
    left, right = left.astype(np.float64), right.astype(np.float64)
    fisher = right.T @ right / len(right)
    damping = _DAMPING * np.trace(fisher) / len(fisher)
    if damping == 0:
        return np.zeros((len(left), len(right)))
    fisher[np.diag_indices_from(fisher)] += damping
    return left @ scipy.linalg.solve(fisher, right.T, assume_a="pos", check_finite=False)


def projected_gradients(
    target: TargetModel, rank: int, seed: int, window: int, tokens_per_batch: int
) -> GradientFeatures:
    """What gives the projected gradients of samples, rank² numbers a layer, at random projections.

    Raises:
        ModelError: the model has layers that cannot be adapted.
    """
    layers = fresh_adapter(target.model, rank, seed)
    projection = Projection({each.name: _random(each, rank, seed) for each in layers}, rank * rank)
    return GradientFeatures(target, layers, projection, window, tokens_per_batch)


def _random(layer: AdaptedLayer, rank: int, seed: int) -> Tensor:
    generator = generator_of("logra", str(seed), layer.name)
    return torch.randn(rank, d_out(layer.module), generator=generator)


class Projection:
    """Projects layers' gradients (n, d_out, r) by P_out (k, d_out), and lays them side by side.

    It takes the place of a sketch. `outer` has P_out by a layer's name; each has k r = `width`.
    """

    def __init__(self, outer: Mapping[str, Tensor], width: int) -> None:
        self.outer = {f"{name}.B": matrix for name, matrix in outer.items()}
        self.columns = {
            name: slice(i * width, (i + 1) * width) for i, name in enumerate(self.outer)
        }
        self.dimensions = width * len(self.outer)

    def empty(self, samples: int, device: torch.device) -> Tensor:
        """Accumulator for `add`: zeros (D, samples) float32."""
        return torch.zeros(self.dimensions, samples, device=device)

    def add(self, accumulator: Tensor, name: str, gradients: Tensor) -> None:
        """Add one layer: gradients (samples, d_out, r) float32 into accumulator (D, samples)."""
        outer = self.outer[name].to(gradients.device)
        accumulator[self.columns[name]] += (outer @ gradients).flatten(1).T

    def features(self, rows: Tensor) -> Tensor:
        """The rows (n, D) as they are: their lengths count."""
        return rows
