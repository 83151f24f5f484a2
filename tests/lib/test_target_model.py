"""Loading the target model: whole, frozen and without running what comes with it, or an error."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from influcoder_lib import models, target_model
from influcoder_lib.errors import ModelError
from tests.tiny import tiny_encoder


def test_a_pickle_beside_safetensors_is_never_read(copy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"model.norm.weight": Bomb()}, copy / "pytorch_model.bin")
    folder = target_model.unpack(models.locate("copy", tmp_path), tmp_path)
    target_model.load_target(folder, "float32")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("dtype", "in_layers"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_a_target_model_is_loaded_frozen_and_for_evaluation(target, dtype, in_layers):
    loaded = target_model.load_target(target, dtype)
    found = {name: parameter.dtype for name, parameter in loaded.model.named_parameters()}
    layers = {name for name in found if "_proj." in name}
    assert len(layers) == 2 * 7
    assert {found.pop(name) for name in layers} == {in_layers}
    assert found.pop("lm_head.weight") == in_layers
    assert set(found.values()) == {torch.float32}
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training
    assert loaded.tokenizer.eos_token == "</s>"


def unloadable(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        target_model.load_target(folder, "float32")
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    (copy / "own.py").write_text("raise SystemExit('it ran')")
    text = unloadable(copy)
    assert "The target model cannot be loaded" in text
    assert "without remote code" in text


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_an_error_that_names_the_folder(copy, file):
    (copy / file).write_bytes((copy / file).read_bytes()[:20])
    assert "The target model cannot be loaded" in unloadable(copy)


def test_weights_that_are_missing_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    text = unloadable(copy)
    assert "lacks weights: model.layers.1.mlp.up_proj.weight." in text


def test_a_target_model_that_the_gpu_has_no_room_for_is_an_error(target, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(ModelError, match="does not fit into the GPU's memory") as caught:
        target_model.load_target(target, "float32")
    assert str(target) in str(caught.value)


def test_weights_of_another_shape_are_an_error(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "cannot be loaded" in unloadable(copy)


def test_an_encoder_is_no_target_model(tmp_path):
    assert "lacks weights" in unloadable(tiny_encoder(tmp_path))


def test_a_folder_needs_no_unpacking_and_a_damaged_gguf_is_an_error(target, tmp_path):
    files = models.locate(str(target), tmp_path)
    assert target_model.unpack(files, tmp_path / "cache") == target
    file = tmp_path / "damaged.gguf"
    file.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match=r"The GGUF file cannot be read(.|\n)*damaged\.gguf"):
        target_model.unpack(models.locate("damaged.gguf", tmp_path), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
