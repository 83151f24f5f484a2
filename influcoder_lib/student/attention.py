"""Attention of an encoder on a CPU: plain matrix products, a few rows of a batch at a time.

The fused CPU kernel is slow on heads as narrow as those of sentence encoders, above all backward.
Blocks that stay in a core's cache are a little faster forward, and much faster backward.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

NAME = "influcoder_rows"
_BLOCK_NUMBERS = 1 << 19
_LONGEST = 1024


def select(model: Any) -> None:
    """Choose the attention of an encoder whose weights are on the CPU.

    Architectures whose attention is more than softmax, or not interchangeable, keep their own.
    """
    if model.device.type == "cpu" and model._supports_sdpa and model._supports_attention_backend:
        model.set_attn_implementation(NAME)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: heads (n, H, T, d) in, (n, T, H, d) out.

    The mask (n, 1, T, T) is added to the logits. Long rows, whose logits would fill the memory,
    and grouped heads take the fused kernel.
    """
    if query.shape[2] > _LONGEST or query.shape[1] != key.shape[1]:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **{**options, "is_causal": False},
        )
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    step = max(1, _BLOCK_NUMBERS // query[0, :, :, 0].numel() // key.shape[2])
    blocks = [
        _products(
            query[start : start + step],
            key[start : start + step],
            value[start : start + step],
            None if attention_mask is None else attention_mask[start : start + step],
            dropout,
        )
        for start in range(0, len(query), step)
    ]
    return torch.cat(blocks), None


def _products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    rows, heads = query.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))
    logits = torch.bmm(q, k.mT).unflatten(0, (rows, heads))
    if mask is not None:
        logits += mask
    shares = torch.softmax(logits, dim=-1)
    if dropout:
        shares = torch.nn.functional.dropout(shares, dropout)
    return torch.bmm(shares.flatten(0, 1), v).unflatten(0, (rows, heads)).transpose(1, 2)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)
