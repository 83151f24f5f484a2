"""A model's folder is looked at before anything of it is loaded, and what lies is refused."""

import json
from pathlib import Path

import pytest

from influcoder_lib import models
from influcoder_lib.errors import ModelError
from tests.tiny import tiny_encoder


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        models.locate(folder.name, folder.parent)
    return caught.value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 10**9),
        ("hidden_size", 10**6),
        ("vocab_size", 10**12),
        ("intermediate_size", 10**10),
        ("num_hidden_layers", 10**6),
        ("num_attention_heads", 10**15),
    ],
)
def test_a_config_that_asks_for_more_than_the_weights_hold_is_refused(copy, key, value):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, key: value}))
    error = refusal(copy)
    assert key in error.problem
    assert error.where == str(copy / "config.json")
    assert "at most" in error.allowed


def test_quantised_weights_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(config))
    error = refusal(copy)
    assert "quantised (gptq)" in error.problem
    assert error.where == str(copy / "config.json")


def test_a_size_further_down_is_seen_too(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"] = {"num_hidden_layers": 10**6}
    (copy / "config.json").write_text(json.dumps(config))
    assert "num_hidden_layers is 1,000,000" in refusal(copy).problem


def test_a_nested_config_without_end_is_refused(copy):
    (copy / "config.json").write_text('{"a":' * 100_000)
    assert "cannot be read" in refusal(copy).problem


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/etc/passwd", "pytorch_model.bin", "a/b.safetensors", ""]
)
def test_an_index_that_names_anything_but_weights_of_its_folder_is_refused(copy, name):
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.embed_tokens.weight": name}}))
    error = refusal(copy)
    assert repr(name) in error.problem
    assert error.where == str(index)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', "{}"])
def test_an_index_that_cannot_be_read_is_refused(copy, text):
    (copy / "model.safetensors.index.json").write_text(text)
    assert "cannot be read" in refusal(copy).problem


def test_weights_with_an_absurd_header_are_refused(copy):
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes((2**62).to_bytes(8, "little") + weights.read_bytes()[8:])
    error = refusal(copy)
    assert "cannot be read" in error.problem
    assert error.where == str(weights)


def test_models_as_they_are_saved_are_taken(target, tmp_path):
    encoder = tiny_encoder(tmp_path)
    for folder in (target, encoder):
        assert models.locate(str(folder), tmp_path).folder == folder
