"""Attention of BERT-like encoders on a CPU, over texts that lie end to end, so nothing is padded.

The fused CPU kernel is slow on heads as narrow as those of sentence encoders, above all backward.
Plain products over one text at a time stay in a core's cache, and need no mask.
"""

from typing import Any

import torch
from sentence_transformers.models import Transformer
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DataCollatorWithFlattening
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "influcoder_texts"
# Tokens see each other through full attention alone, and their places through a table.
_ARCHITECTURES = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}
_LONGEST = 1024


def select(transformer: Transformer) -> None:
    """Let an encoder of a known architecture whose weights are on the CPU use this attention.

    sentence-transformers lays texts end to end for flash attention only, so it is told to.
    """
    model = transformer.auto_model
    if model.device.type != "cpu" or model.config.model_type not in _ARCHITECTURES:
        return
    model.set_attn_implementation(NAME)
    transformer.data_collator = DataCollatorWithFlattening(
        return_seq_idx=True, return_flash_attn_kwargs=True, return_position_ids=True
    )
    if transformer.model_forward_params is not None:
        transformer.model_forward_params.add("cu_seq_lens_q")
    transformer._flatten_position_offset = transformer._infer_flatten_position_offset()
    transformer.can_flatten_inputs = True


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: heads (n, H, T, d) in, (n, T, H, d) out.

    `cu_seq_lens_q` (texts + 1,) int32: where each text begins in the one row, and where the last
    ends. Without it rows are padded, as of a call that is not ours, and take the fused kernel.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    # Split, not sliced: the gradient of each slice would fill a tensor of the whole row.
    lengths = cu_seq_lens_q.diff().tolist()
    queries, keys, values = (each.split(lengths, dim=2) for each in (query, key, value))
    outputs = [_of_text(*text, dropout) for text in zip(queries, keys, values, strict=True)]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _of_text(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention (1, H, t, d) of a text of t tokens; the logits of a long one would fill memory."""
    if query.shape[2] > _LONGEST:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, scale=1.0
        )
    shares = torch.softmax(torch.matmul(query, key.mT), dim=-1)
    if dropout:
        shares = torch.nn.functional.dropout(shares, dropout)
    return torch.matmul(shares, value)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
