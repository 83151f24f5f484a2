"""What is looked at of a model's folder before anything of it is loaded: its weights lie in it, and
its config.json asks for no more than they hold.

A model is first built as large as its config says, and only then filled: a config that lies could
take all memory, or for ever.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from influcoder_lib.errors import ModelError

_INDEX = "*.safetensors.index.json"
_LAYERS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers"}
_WIDTHS = {
    *("hidden_size", "n_embd", "d_model", "dim", "vocab_size", "intermediate_size", "n_inner"),
    *("ffn_dim", "head_dim", "num_attention_heads", "n_head", "num_key_value_heads"),
}
# Tables that are stored as two factors (ALBERT's) are larger than what the weights hold of them.
_FACTORED = 16


class _Held(NamedTuple):
    """Tensors and numbers that the weights of a folder hold."""

    tensors: int
    numbers: int


def check_weights(folder: Path) -> None:
    """Look at every config.json below a folder that has safetensors beside it.

    Raises:
        ModelError: an index names weights that are no safetensors of this folder, weights cannot be
            read or are quantised, or a size in the config is beyond anything that they could fill.
    """
    for index in folder.rglob(_INDEX):
        _check_index(index)
    for place in sorted({path.parent for path in folder.rglob("*.safetensors")}):
        config = place / "config.json"
        if config.is_file():
            _check_config(config, _held(place))


def tensor_sizes(path: Path) -> list[int]:
    """How many numbers each tensor of a safetensors file has, from the file's header.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as weights:
            names = list(weights.keys())
            return [math.prod(weights.get_slice(name).get_shape()) for name in names]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The weights cannot be read: {error}", where=str(path)) from error


def _check_index(index: Path) -> None:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The index of the weights cannot be read: {error}.", where=str(index)
        ) from error
    for name in sorted(map(str, names)):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"The index of the weights names {name!r}.",
                where=str(index),
                allowed="names of .safetensors files in the same folder",
            )


def _held(folder: Path) -> _Held:
    sizes = [size for path in sorted(folder.glob("*.safetensors")) for size in tensor_sizes(path)]
    return _Held(len(sizes), sum(sizes))


def _check_config(config: Path, held: _Held) -> None:
    try:
        content = json.loads(config.read_text())
        sizes = list(_sizes(content))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The config cannot be read: {error}.", where=str(config)) from error
    if isinstance(content, dict) and (quantised := content.get("quantization_config")):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ModelError(
            f"The weights are quantised ({method}): nothing can be computed from them as they are.",
            where=str(config),
            allowed="weights in float32, float16 or bfloat16; or a GGUF file, which is dequantised",
            fix="name the model that it was quantised from",
        )
    for key, value in sizes:
        most = held.tensors if key in _LAYERS else held.numbers * _FACTORED
        if value > most:
            raise ModelError(
                f"The config asks for more than the weights could fill: {key} is {value:,}.",
                where=str(config),
                allowed=f"at most {most:,}, as the weights have {held.tensors:,} tensors with "
                f"{held.numbers:,} numbers in all",
                fix="use a folder whose config.json and weights were saved together",
            )


def _sizes(config: Any) -> Iterator[tuple[str, int]]:
    """The sizes that a config names, at any depth, and the tables that its widths make together."""
    if not isinstance(config, dict):
        return
    own = {
        key: value
        for key, value in config.items()
        if key in _LAYERS | _WIDTHS and isinstance(value, int) and not isinstance(value, bool)
    }
    yield from own.items()
    width = own.get("hidden_size") or own.get("n_embd") or own.get("d_model") or 0
    for other in ("vocab_size", "intermediate_size"):
        if width and other in own:
            yield f"hidden_size x {other}", width * own[other]
    for value in config.values():
        yield from _sizes(value)
