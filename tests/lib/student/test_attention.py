"""Attention by rows agrees with transformers' own, forward and backward, masked or not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from influcoder_lib.samples import Sample
from influcoder_lib.student import attention
from influcoder_lib.student.encoder import InfluenceEncoder
from tests.tiny import tiny_encoder

SAMPLES = [Sample(str(i), "the cat " * (i % 5), "red dog . " * (1 + i % 3)) for i in range(9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


def loaded(folder: Path, implementation: str) -> InfluenceEncoder:
    encoder = InfluenceEncoder.load(folder, 48, "float32")
    encoder.model[0].auto_model.set_attn_implementation(implementation)
    return encoder


def test_it_is_chosen_on_a_cpu(folder: Path) -> None:
    model = InfluenceEncoder.load(folder, 48).model[0].auto_model
    assert (model.config._attn_implementation == attention.NAME) == (model.device.type == "cpu")


@pytest.mark.parametrize("numbers", [1, 5000, 1 << 19])
def test_vectors_are_those_of_transformers_whatever_the_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    monkeypatch.setattr(attention, "_BLOCK_NUMBERS", numbers)
    ours, theirs = (loaded(folder, name).encode(SAMPLES) for name in (attention.NAME, "eager"))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_long_rows_take_the_fused_kernel_and_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_LONGEST", 10)
    ours, theirs = (loaded(folder, name).encode(SAMPLES) for name in (attention.NAME, "eager"))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_gradients_are_those_of_transformers(folder: Path) -> None:
    found = []
    for name in (attention.NAME, "eager"):
        encoder = loaded(folder, name)
        (encoder.forward(SAMPLES)[:, :3] ** 2).sum().backward()
        found.append({n: p.grad for n, p in encoder.model.named_parameters() if p.grad is not None})
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4)


def test_in_training_attention_is_dropped_out(folder: Path) -> None:
    encoder = loaded(folder, attention.NAME)
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    encoder.model.train()
    still = encoder.forward(SAMPLES)
    assert torch.equal(still, encoder.forward(SAMPLES))
    for layer in encoder.model[0].auto_model.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    assert not torch.equal(still, encoder.forward(SAMPLES))
