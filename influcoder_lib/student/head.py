"""The head of kernel and static students: what it is told of a sample, and the regression on it.

A gradient feature comes from the response, given the prompt, so the two are pooled apart, and at
several depths if there are any: what a token is says as much about its gradient as what it means in
its place. How many tokens there are, and how the texts are set, is told outright, as a mean cannot
know it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn

from influcoder_lib.student import surface
from influcoder_lib.vectors import unit_rows

PARTS = 2
"""Prompt and response."""

# Pieces that are told outright: lengths and surface.
_TOLD = 2

# Centres of the radial basis functions of log(1 + tokens); e^8 is 3,000 tokens.
_CENTRES = torch.arange(0, 8.5, 0.5)
_WIDTH = 0.5
# Both parts of a candidate's vector, each at most of length 1, fit into one of length 1.
_ROOT_HALF = 0.5**0.5


class KernelHead(Module):
    """Hidden states of some layers to one unit vector a sample; a sentence-transformers module.

    `layers` are places in the list of hidden states, 0 the token embeddings, which are all that a
    static encoder has; `width` is their size h, `dimension` the vector's, `supports` the training
    queries and candidates, `told` what lengths and surface weigh for either, to 1 of the pools.

    A vector has three parts. The first predicts the sample's gradient feature in the span of the
    queries; that of a candidate that is hard to predict is short. The second, a third of all
    numbers, is what the last layer makes of the sample, as an untrained encoder compares it. The
    last number makes up a candidate's length to 1; a query has 0 there, so it changes no score.
    A query whose second part is 0 has cosines in proportion to the expected influences, and
    `blended` sets how much of plain resemblance goes in. Between two candidates, the cosine orders
    by the distance of all three parts.
    """

    config_keys: ClassVar[list[str]] = ["layers", "width", "dimension", "supports", "told"]
    basis: Tensor
    spreads: Tensor

    def __init__(
        self,
        layers: list[int],
        width: int,
        dimension: int,
        supports: list[int],
        told: Sequence[float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.layers, self.width, self.dimension = layers, width, dimension
        self.supports = supports
        lengths = PARTS * (len(_CENTRES) + 1)
        groups = [*[width] * (PARTS * len(layers)), lengths, PARTS * surface.NUMBERS]
        self.resembling = dimension // 3
        self.influencing = dimension - 1 - self.resembling
        self.query, self.candidate = (
            Regression(groups, count, self.influencing, weight)
            for count, weight in zip(supports, told, strict=True)
        )
        self.register_buffer("basis", torch.zeros(width, self.resembling))
        self.register_buffer("spreads", torch.ones(2))

    @property
    def told(self) -> list[float]:
        """What lengths and surface weigh for queries and for candidates."""
        return [self.query.told, self.candidate.told]

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` (n, dimension) float32; wants `role`, and what `featurize`
        does.

        Raises:
            KeyError: a feature is missing.
        """
        with torch.autocast(features["counts"].device.type, enabled=False):
            own = self.featurize(features)
            resemblance = self.embedding(own) @ self.basis
            if features["role"] == "query":
                influence = nn.functional.normalize(self.query(own), dim=1)
                padding = torch.zeros_like(influence[:, :1])
                vectors = torch.cat([influence, resemblance, padding], dim=1)
            else:
                influence = self.candidate(own)
                influence = influence / influence.norm(dim=1, keepdim=True).clamp(min=1)
                parts = torch.cat([influence, resemblance], dim=1) * _ROOT_HALF
                padding = (1 - parts.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
                vectors = torch.cat([parts, padding], dim=1)
        features["sentence_embedding"] = vectors
        return features

    def blended(self, queries: np.ndarray, resemblance: float) -> np.ndarray:
        """Unit vectors (n, dimension) float32 of queries, for scores of which `resemblance`, in
        [0, 1), is plain resemblance and the rest influence, each in units of its standard deviation
        in training."""
        shares = (1 - resemblance, resemblance) / self.spreads.cpu().numpy()
        # The first part comes with the length that unit vectors have left to it.
        lengths = np.linalg.norm(queries[:, : self.influencing], axis=1, keepdims=True)
        scaled = queries / np.where(lengths > 0, lengths, 1)
        scaled[:, : self.influencing] *= shares[0]
        scaled[:, self.influencing :] *= shares[1]
        return unit_rows(scaled)

    def embedding(self, features: Tensor) -> Tensor:
        """Unit vectors (n, h) float32 of samples' features: the last layer, prompt and response
        alike."""
        start = PARTS * (len(self.layers) - 1) * self.width
        prompts, responses = features[:, start:].split(self.width, dim=1)[:PARTS]
        return nn.functional.normalize(prompts + responses, dim=1)

    def featurize(self, features: dict[str, Any]) -> Tensor:
        """All that the head is told of n samples, side by side: (n, D) float32.

        Wants `counts` (n, PARTS) float32, the tokens of each part before truncation, `surface`
        (n, PARTS · NUMBERS) float32, and of a transformer `all_layer_embeddings`, each
        (rows, T, h), with `parts` (rows, T) int64: PARTS · i + part for a token of sample i,
        PARTS · n for one of no part. Of a static encoder it wants `sentence_embedding`
        (PARTS · n, h), the means of the parts.
        """
        counts = features["counts"]
        pools = self._pools(features, PARTS * len(counts))
        pools = nn.functional.layer_norm(pools, pools.shape[-1:])
        pools = pools.reshape(len(self.layers), len(counts), -1)
        return torch.cat([*pools, _length_features(counts), features["surface"]], dim=1)

    def _pools(self, features: dict[str, Any], count: int) -> Tensor:
        """Mean of each part's tokens, (layers, count, h) float32; a part without tokens is 0."""
        if "parts" not in features:
            return features["sentence_embedding"].float()[None]
        states = torch.stack([features["all_layer_embeddings"][layer] for layer in self.layers])
        return _means(states, features["parts"].flatten(), count)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        """Write config and weights, as sentence-transformers asks a module to."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> "KernelHead":
        """The head that `save` wrote into a local folder."""
        head = super().load(model_name_or_path, *args, **options)
        return cls.load_torch_weights(model_name_or_path, local_files_only=True, model=head)

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.dimension


class Regression(nn.Module):
    """Kernel ridge regression: features (n, D) to numbers (n, k), `offset` being the intercept.

    `groups` are the widths of the pieces that the features consist of: pools, and the last `_TOLD`
    what is told outright. A piece's kernel is exp(-|x - s|²), in units that `factor` sets, with
    every support s; the whole one is the mean of the pools' and, weighing `told`, of the others'.
    """

    mean: Tensor
    factor: Tensor
    support: Tensor
    dual: Tensor
    offset: Tensor

    def __init__(self, groups: list[int], supports: int, numbers: int, told: float) -> None:
        super().__init__()
        self.groups, self.told = groups, told
        for name, shape in {
            "mean": (sum(groups),),
            "factor": (sum(groups),),
            "support": (supports, sum(groups)),
            "dual": (supports, numbers),
            "offset": (numbers,),
        }.items():
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Predictions (n, k) float32."""
        return self.kernel(self.scaled(features)) @ self.dual + self.offset

    def scaled(self, features: Tensor) -> Tensor:
        """Features (n, D) float32 in the kernel's units."""
        return (features - self.mean) * self.factor

    def kernel(self, scaled: Tensor) -> Tensor:
        """Kernel (n, supports) float32 of scaled features (n, D)."""
        return blend(*self.kernels(scaled), self.told)

    def kernels(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels (n, supports) float32 of scaled features (n, D): of the pools, and of what is
        told outright."""
        means = []
        pieces = list(zip(*(x.split(self.groups, 1) for x in (scaled, self.support)), strict=True))
        for part in (pieces[:-_TOLD], pieces[-_TOLD:]):
            total = scaled.new_zeros(len(scaled), len(self.support))
            for own, other in part:
                total += torch.exp(-square_distances(own, other)) / len(part)
            means.append(total)
        return means[0], means[1]


def blend(pools: Tensor, told: Tensor, weight: float) -> Tensor:
    """The mean of two kernels, of which the second has this weight and the first 1."""
    return (pools + weight * told) / (1 + weight)


def square_distances(left: Tensor, right: Tensor) -> Tensor:
    """Squared distances (n, m) of rows."""
    squares = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)
    return (squares - 2 * left @ right.T).clamp(min=0)


def _means(states: Tensor, parts: Tensor, count: int) -> Tensor:
    """Mean of each part's tokens, (layers, count, h) float32, of states (layers, rows, T, h)."""
    flat = states.flatten(1, 2).float()
    sums = flat.new_zeros(len(flat), count + 1, flat.shape[-1]).index_add(1, parts, flat)
    tokens = torch.bincount(parts, minlength=count + 1)[:count].clamp(min=1)
    return sums[:, :count] / tokens[:, None]


def _length_features(counts: Tensor) -> Tensor:
    """log(1 + tokens) of each part (n, PARTS), as such and through the radial basis functions."""
    logs = torch.log1p(counts)
    rbf = torch.exp(-(((logs[:, :, None] - _CENTRES.to(logs)) / _WIDTH) ** 2))
    return torch.cat([logs / 4 - 1, rbf.flatten(1)], dim=1)
