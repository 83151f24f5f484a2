"""The head of a student that knows prompt from response: pools of both, and their lengths.

A gradient feature comes from the response, given the prompt, so the two are pooled apart, and at
several depths: what a token is says as much about its gradient as what it means in its place. How
many tokens there are is told outright; a mean cannot know it, and influence depends on it.
"""

from typing import Any, ClassVar

import torch
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn

PARTS = 2
"""Prompt and response."""

# Centres of the bumps that log(1 + tokens) is described by; e^8 is 3,000 tokens.
_CENTRES = torch.arange(0, 8.5, 0.5)
_WIDTH = 0.5
_LENGTH_NUMBERS = 2 * (len(_CENTRES) + 1)


class PartsHead(Module):
    """Hidden states of some layers to one vector a sample; a sentence-transformers module.

    `layers` are places in the list of hidden states, 0 the token embeddings, `width` is their size
    h. The pools, one a layer and part, are brought to mean 0 and variance 1 and go, with the length
    features, through a linear map and beside it through one hidden layer of `hidden` numbers.
    """

    config_keys: ClassVar[list[str]] = ["layers", "width", "hidden", "dimension", "dropout"]

    def __init__(
        self, layers: list[int], width: int, hidden: int, dimension: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers, self.width, self.hidden = layers, width, hidden
        self.dimension, self.dropout = dimension, dropout
        given = PARTS * len(layers) * width + _LENGTH_NUMBERS
        self.drop = nn.Dropout(dropout)
        self.straight = nn.Linear(given, dimension)
        self.into, self.out = nn.Linear(given, hidden), nn.Linear(hidden, dimension)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` (n, dimension) float32.

        Wants `all_layer_embeddings`, each (rows, T, h), `parts` (rows, T) int64: PARTS · i + part
        for a token of sample i, PARTS · n for one of no part, and `counts` (n, PARTS) float32, the
        tokens of each part before truncation.
        """
        states = [features["all_layer_embeddings"][layer] for layer in self.layers]
        counts = features["counts"]
        pools = _means(torch.stack(states), features["parts"].flatten(), PARTS * len(counts))
        pools = pools.reshape(len(states), len(counts), -1)
        pools = nn.functional.layer_norm(pools, pools.shape[-1:])
        given = torch.cat([*pools, _length_features(counts)], dim=1)
        given = self.drop(given)
        with torch.autocast(given.device.type, enabled=False):
            bent = self.drop(nn.functional.gelu(self.into(given)))
            features["sentence_embedding"] = self.straight(given) + self.out(bent)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        """Write config and weights, as sentence-transformers asks a module to."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> "PartsHead":
        """The head that `save` wrote into a local folder."""
        head = super().load(model_name_or_path, *args, **options)
        return cls.load_torch_weights(model_name_or_path, local_files_only=True, model=head)

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.dimension


def _means(states: Tensor, parts: Tensor, count: int) -> Tensor:
    """Mean of the tokens of each part, (layers, count, h) float32, of states (layers, rows, T, h);
    a part without tokens is 0."""
    flat = states.flatten(1, 2).float()
    sums = flat.new_zeros(len(flat), count + 1, flat.shape[-1]).index_add(1, parts, flat)
    tokens = torch.bincount(parts, minlength=count + 1)[:count].clamp(min=1)
    return sums[:, :count] / tokens[:, None]


def _length_features(counts: Tensor) -> Tensor:
    """log(1 + tokens) of each part (n, PARTS), as such and as bumps: (n, _LENGTH_NUMBERS)."""
    logs = torch.log1p(counts)
    bumps = torch.exp(-(((logs[:, :, None] - _CENTRES.to(logs)) / _WIDTH) ** 2))
    return torch.cat([logs / 4 - 1, bumps.flatten(1)], dim=1)
