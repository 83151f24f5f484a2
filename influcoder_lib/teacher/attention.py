"""Causal attention for gradients on a CPU: plain matrix products over blocks of queries.

The fused CPU kernel saves memory that rows of a few hundred tokens do not need, and its backward
is three times slower than these products. Each block of queries meets only the keys up to its end,
so about half of the masked square is never computed, and grouped heads share their keys uncopied.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "influcoder_blocks"
_BLOCK = 256
_LONGEST = 1024


def select(model: Any, tokens: int) -> None:
    """Choose the attention of a decoder on the CPU for rows of so many tokens.

    Probabilities are kept for the backward, so memory grows with the square of a row's tokens:
    long rows take the fused kernel. Architectures whose attention is more than softmax (capped
    logits, sinks) or not interchangeable keep their own.
    """
    if not model._supports_sdpa:
        model.set_attn_implementation("eager")
    elif tokens > _LONGEST or not model._supports_attention_backend:
        model.set_attn_implementation("sdpa")
    else:
        model.set_attn_implementation(NAME)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: heads (n, H, T, d) in, (n, T, H, d) out.

    A mask that is given is more than causal, as of a sliding window; so is a bias by position.
    """
    causal = options.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    if attention_mask is not None or options.get("position_bias") is not None or not causal:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    device = query.device.type
    # A trained adapter leaves a value in float32, which is not what it is to be multiplied in.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    with torch.autocast(device, enabled=False):
        heads = _CausalBlocks.apply((query * scale).to(dtype), key.to(dtype), value.to(dtype))
    return heads.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _CausalBlocks(torch.autograd.Function):
    """softmax(q k^T) v under the causal mask; q (n, H, T, d), k (n, K, T, d), v (n, K, T, e)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        samples, heads, tokens, _ = query.shape
        groups = samples * key.shape[1]
        q = query.reshape(groups, heads // key.shape[1], tokens, -1)
        k, v = (x.reshape(groups, tokens, -1) for x in (key, value))
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        shares = []
        for start in range(0, tokens, _BLOCK):
            stop = min(start + _BLOCK, tokens)
            logits = torch.bmm(q[:, :, start:stop].flatten(1, 2), k[:, :stop].mT)
            logits = logits.view(groups, -1, stop - start, stop)
            logits[..., start:] += _future(stop - start, logits)
            share = torch.softmax(logits, dim=-1).flatten(1, 2)
            out[:, :, start:stop] = torch.bmm(share, v[:, :stop]).view_as(out[:, :, start:stop])
            shares.append(share)
        ctx.save_for_backward(q, k, v, *shares)
        return out.view(samples, heads, tokens, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *shares = ctx.saved_tensors
        d_out = gradients[0].reshape(*q.shape[:3], v.shape[-1]).to(q.dtype)
        d_q = torch.empty_like(q)
        d_k, d_v = (torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
        for start, share in zip(range(0, q.shape[2], _BLOCK), shares, strict=True):
            stop = start + share.shape[1] // q.shape[1]
            rows = slice(start, stop)
            d_block = d_out[:, :, rows].flatten(1, 2)
            d_share = torch.bmm(d_block, v[:, :stop].mT)
            d_logits = torch._softmax_backward_data(d_share, share, -1, share.dtype)
            d_q[:, :, rows] = torch.bmm(d_logits, k[:, :stop]).view_as(d_q[:, :, rows])
            d_k[:, :stop] += torch.bmm(d_logits.mT, q[:, :, rows].flatten(1, 2))
            d_v[:, :stop] += torch.bmm(share.mT, d_block)
        samples = gradients[0].shape[0]
        whole = gradients[0].shape[:3]
        return (
            d_q.view(*whole, -1),
            d_k.to(k.dtype).view(samples, -1, *k.shape[1:]),
            d_v.to(v.dtype).view(samples, -1, *v.shape[1:]),
        )


def _future(size: int, like: Tensor) -> Tensor:
    """-inf above the diagonal, 0 elsewhere: (size, size)."""
    return torch.full((size, size), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)
