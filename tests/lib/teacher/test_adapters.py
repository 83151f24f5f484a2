"""Adapters trained with PEFT: the model computes what PEFT's does, and what it cannot is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from influcoder_lib.errors import ModelError
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import trained_adapter
from tests.tiny import ARCHITECTURES, tiny_target

IDS = torch.tensor([[7, 9, 30, 12, 8, 41, 6], [20, 21, 22, 23, 24, 25, 26]])


def saved(target: Path, out: Path, config: Any, seed: int = 0) -> Path:
    """An adapter as PEFT saves it, all of its trained weights random."""
    wrapped = get_peft_model(load_target(target, "float32").model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    wrapped.save_pretrained(out, safe_serialization=True)
    return out


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_target(tmp_path_factory.mktemp("target"), "llama")


@pytest.fixture(scope="module")
def plain(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"])
    return saved(llama, tmp_path_factory.mktemp("adapter"), config)


def assert_computes_like_peft(target: Path, adapter: Path) -> None:
    """Our adapter and PEFT's modules give the same logits, and the plain model others."""

    def logits(model: Any) -> Tensor:
        with torch.no_grad():
            return model(input_ids=IDS).logits

    adapted = load_target(target, "float32").model
    before = logits(adapted)
    trained_adapter(adapted, adapter)
    expected = logits(PeftModel.from_pretrained(load_target(target, "float32").model, adapter))
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-4)
    assert float((before - expected).abs().max()) > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_adapted_model_is_the_one_of_peft(tmp_path, architecture):
    target = tiny_target(tmp_path / "target", architecture)
    config = LoraConfig(r=3, lora_alpha=5, target_modules="all-linear")
    assert_computes_like_peft(target, saved(target, tmp_path / "adapter", config))


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 20}},
        {"alpha_pattern": {r"layers\.1\.self_attn\..*": 20}, "rank_pattern": {"k_proj": 1}},
        {"alpha_pattern": {"proj": 50}},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian"},
        {"lora_dropout": 0.5},
    ],
    ids=str,
)
def test_options_of_plain_lora_are_understood(llama, tmp_path, options):
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "k_proj"], **options)
    assert_computes_like_peft(llama, saved(llama, tmp_path / "adapter", config))


def test_factors_are_those_of_the_file(llama, plain):
    layers = trained_adapter(load_target(llama, "float32").model, plain)
    stored = load_file(plain / "adapter_model.safetensors")
    assert sorted(layer.name for layer in layers) == [
        f"model.layers.{block}.{name}"
        for block in range(2)
        for name in ("mlp.down_proj", "self_attn.q_proj")
    ]
    for layer in layers:
        assert layer.b is not None
        assert torch.equal(layer.a, stored[f"base_model.model.{layer.name}.lora_A.weight"])
        assert torch.equal(layer.b, stored[f"base_model.model.{layer.name}.lora_B.weight"])
        assert layer.scale == 3.0


def test_what_a_short_training_has_learnt_is_not_rounded_away_in_bfloat16(llama, plain, tmp_path):
    slight = changed(plain, tmp_path / "adapter")
    weights = load_file(slight / "adapter_model.safetensors")
    # Some hundredths of a per cent of the weights, of which bfloat16 keeps eight bits.
    scaled = {name: value * (1e-3 if "lora_B" in name else 1) for name, value in weights.items()}
    save_file(scaled, slight / "adapter_model.safetensors")
    inputs = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    for layer in trained_adapter(load_target(llama, "bfloat16").model, slight):
        if layer.name.endswith("q_proj"):
            plainly = functional.linear(inputs, layer.module.weight)
            a, b = (weights[f"base_model.model.{layer.name}.lora_{name}.weight"] for name in "AB")
            learnt = 3.0 * inputs.float() @ a.T @ (1e-3 * b).T
            added = (layer.module(inputs) - plainly).float()
            torch.testing.assert_close(added, learnt, rtol=0.05, atol=2e-5)


def changed(folder: Path, copy: Path, **keys: object) -> Path:
    """A copy of an adapter with some keys of its settings set."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | keys))
    return copy


def problem(target: Path, adapter: Path) -> str:
    model = load_target(target, "float32").model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        trained_adapter(model, adapter)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"modules_to_save": ["lm_head"]}, "LORA modules_to_save"),
        ({"init_lora_weights": "pissa"}, "LORA init_lora_weights=pissa"),
        ({"init_lora_weights": "olora"}, "LORA init_lora_weights=olora"),
        ({"alora_invocation_tokens": [3]}, "LORA alora_invocation_tokens"),
        ({"trainable_token_indices": [3], "lora_bias": True}, "trainable_token_indices lora_bias"),
    ],
    ids=str,
)
def test_a_variant_of_lora_is_an_error_that_names_it(llama, plain, tmp_path, keys, named):
    text = problem(llama, changed(plain, tmp_path / "adapter", **keys))
    assert "This kind of adapter is not supported" in text
    assert named in text
    assert "plain LoRA" in text


@pytest.mark.parametrize(
    "keys",
    [
        *({"r": value} for value in (0, -1, 10**9, "x", None, True)),
        *({"lora_alpha": value} for value in (0, "x", float("inf"), float("nan"))),
        *(
            {"rank_pattern": value}
            for value in (3, {"(": 1}, {"((.+)+)+!": 1}, {".*.*.*.*!": 1}, {"q_proj": 0})
        ),
        {"alpha_pattern": {"q_proj": float("inf")}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(llama, plain, tmp_path, keys):
    adapter = changed(plain, tmp_path / "adapter", **keys)
    assert str(adapter / "adapter_config.json") in problem(llama, adapter)


def test_a_rank_that_the_weights_do_not_have_is_an_error_that_names_both(llama, plain, tmp_path):
    text = problem(llama, changed(plain, tmp_path / "adapter", r=64))
    assert "rank 64; its weights have 2" in text


def test_dora_as_peft_saves_it_is_an_error(llama, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    text = problem(llama, saved(llama, tmp_path / "adapter", config))
    assert "not supported: LORA use_dora." in text


def test_another_kind_of_adapter_is_an_error(llama, tmp_path):
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    text = problem(llama, saved(llama, tmp_path / "adapter", config))
    assert "not supported: IA3." in text


def test_an_adapter_of_pickles_only_is_an_error(llama, plain, tmp_path):
    adapter = changed(plain, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    torch.save(weights, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    text = problem(llama, adapter)
    assert "The adapter has no safetensors weights." in text
    assert str(adapter) in text


def test_an_adapter_without_settings_is_an_error(llama, plain, tmp_path):
    adapter = changed(plain, tmp_path / "adapter")
    (adapter / "adapter_config.json").unlink()
    assert "adapter_config.json" in problem(llama, adapter)


def test_damaged_weights_are_an_error(llama, plain, tmp_path):
    adapter = changed(plain, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    text = problem(llama, adapter)
    assert "The adapter cannot be read" in text
    assert str(adapter) in text


@pytest.mark.parametrize(
    ("layer", "name"), [("lm_head", "lm_head"), ("embed_tokens", "model.embed_tokens")]
)
def test_an_adapter_of_head_or_embeddings_is_an_error_that_names_it(llama, tmp_path, layer, name):
    config = LoraConfig(r=2, target_modules=["q_proj", layer])
    text = problem(llama, saved(llama, tmp_path / "adapter", config))
    assert f"fit no linear layer: base_model.model.{name}." in text


def test_an_adapter_for_other_layers_is_an_error_that_names_one(llama, tmp_path):
    other = tiny_target(tmp_path / "other", "gpt2")
    config = LoraConfig(r=2, target_modules=["c_attn"])
    text = problem(llama, saved(other, tmp_path / "adapter", config))
    assert "fit no linear layer: base_model.model.transformer.h.0.attn.c_attn.lora_A" in text
    assert "of this very target model" in text


def test_an_adapter_for_a_model_of_another_width_is_an_error_that_names_the_layer(
    llama, plain, tmp_path
):
    adapter = changed(plain, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    weights[name] = torch.ones(2, 40)
    save_file(weights, file)
    text = problem(llama, adapter)
    assert "model.layers.0.self_attn.q_proj of shape (32, 40)" in text
    assert "(32, 32)" in text
