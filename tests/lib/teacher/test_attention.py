"""Attention in blocks against torch's own, forward and backward, and who gets which attention."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from influcoder_lib.hardware import computing_in
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher import attention
from tests.tiny import tiny_target


class Layer(nn.Module):
    is_causal = True
    num_key_value_groups = 3


def heads(tokens: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Query (2, 6, T, 8), key (2, 2, T, 8) and value (2, 2, T, 4)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, count, tokens, width, generator=generator).to(dtype).requires_grad_()
        for count, width in ((6, 8), (2, 8), (2, 4))
    ]


def expected(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The same in float64 by torch's kernel: (n, T, H, e)."""
    q, k, v = query.double(), key.double(), value.double()
    found = functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scale, enable_gqa=True
    )
    return found.transpose(1, 2)


@pytest.mark.parametrize("tokens", [1, 7, 256, 257, 700])
def test_blocks_give_the_attention_and_the_gradients_of_the_whole_square(tokens):
    inputs = heads(tokens, torch.float32, tokens)
    twin = [x.detach().clone().requires_grad_() for x in inputs]
    found, _ = attention._attend(Layer(), *inputs, None, scaling=0.3)
    truth = expected(*twin, 0.3)
    torch.testing.assert_close(found, truth.float(), rtol=1e-4, atol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (truth * weights).sum().backward()
    for one, other in zip(inputs, twin, strict=True):
        torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32], ids=str)
def test_in_bfloat16_they_stay_within_its_rounding(given):
    inputs = heads(300, given, 0)
    with computing_in(torch.bfloat16, torch.device("cpu")):
        found, _ = attention._attend(Layer(), *inputs, None)
    assert found.dtype == torch.bfloat16
    error = (found.double() - expected(*inputs, 8**-0.5)).norm() / found.double().norm()
    assert error < 0.01


def test_a_mask_of_the_models_own_is_obeyed():
    query, key, value = heads(5, torch.float32, 0)
    only_itself = torch.eye(5, dtype=torch.bool)[None, None]
    found, _ = attention._attend(Layer(), query, key, value, only_itself, scaling=1.0)
    own = value.repeat_interleave(3, dim=1).transpose(1, 2)
    torch.testing.assert_close(found, own)


def test_attention_that_is_not_causal_looks_ahead():
    query, key, value = heads(5, torch.float32, 0)
    found, _ = attention._attend(Layer(), query, key, value, None, scaling=0.3, is_causal=False)
    square = functional.scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, square.transpose(1, 2))


def test_a_bias_by_position_is_obeyed():
    query, key, value = heads(5, torch.float32, 0)
    only_itself = torch.full((1, 1, 5, 5), -1e9).masked_fill(torch.eye(5, dtype=torch.bool), 0.0)
    found, _ = attention._attend(
        Layer(), query, key, value, None, scaling=1.0, position_bias=only_itself
    )
    own = value.repeat_interleave(3, dim=1).transpose(1, 2)
    torch.testing.assert_close(found, own)


@pytest.mark.parametrize(
    ("architecture", "tokens", "chosen"),
    [
        ("llama", 1024, attention.NAME),
        ("llama", 1025, "sdpa"),
        ("gemma2", 16, "eager"),
        ("gemma2", 4096, "eager"),
    ],
)
def test_capped_logits_and_long_rows_have_an_attention_of_their_own(
    tmp_path, architecture, tokens, chosen
):
    model = load_target(tiny_target(tmp_path / "target", architecture), "float32").model
    attention.select(model, tokens)
    assert model.config._attn_implementation == chosen
