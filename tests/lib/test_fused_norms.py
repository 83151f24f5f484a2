"""Fused RMS norms compute what a decoder's own norms do."""

import numpy as np
import pytest
import torch

from influcoder_lib import fused_norms
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import fresh_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from tests.tiny import ARCHITECTURES, tiny_target

# Before attention and MLP of two blocks and at the end; qwen's heads have two in each block.
FUSED = {"llama": 5, "qwen": 9}
SAMPLES = [Sample("1", "what is red?", "the cat."), Sample("2", "why", "a dog sings")]


@pytest.fixture
def fuse(monkeypatch):
    """What fuses the norms of a decoder, which is loaded with its own."""
    own = fused_norms.fuse
    monkeypatch.setattr(fused_norms, "fuse", lambda model: 0)
    return own


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_decoder_with_fused_norms_is_the_same_function(architecture, tmp_path, fuse):
    target = load_target(tiny_target(tmp_path / architecture, architecture), "float32")
    layers = fresh_adapter(target.model, 4, 0)

    def computed():
        ids = target.tokenizer("the dog is red", return_tensors="pt")["input_ids"]
        engine = GradientFeatures(target, layers, CountSketch(256, 0), 32, 64)
        (batch,) = engine.features(SAMPLES)
        with torch.no_grad():
            return target.model(input_ids=ids).logits.numpy(), batch.rows

    before = computed()
    assert fuse(target.model) == FUSED.get(architecture, 0)
    for own, fused in zip(before, computed(), strict=True):
        np.testing.assert_allclose(fused, own, atol=1e-5)


def test_a_norm_that_does_more_is_left_alone(tmp_path, fuse):
    model = load_target(tiny_target(tmp_path / "llama", "llama"), "float32").model
    odd = model.model.norm
    plain = odd.forward
    odd.forward = lambda hidden: plain(hidden) + 1e-3
    assert fuse(model) == FUSED["llama"] - 1


def test_the_target_model_is_loaded_with_fused_norms(tmp_path):
    model = load_target(tiny_target(tmp_path / "llama", "llama"), "float32").model
    fused = [module for module in model.modules() if "forward" in vars(module)]
    assert len(fused) == FUSED["llama"]
