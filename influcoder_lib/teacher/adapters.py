"""LoRA factors of a decoder's layers: fresh and seeded, or trained by the user with PEFT.

The adapter is never put into the model as modules. What a trained one adds to a layer's output is
added there by a hook. Merged into weights of bfloat16, most of a short training would be rounded
away: its steps are smaller than the weights' own.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError

# Options of PEFT that make an adapter more than W + scale * B A on frozen weights W. The inits that
# are not named here take their share out of W first, so adding to the plain W would be wrong.
_VARIANTS = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "use_qalora",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
)
_MOST_RANK = 1 << 16
# Without groups, and with few repetitions, no regular expression takes long on a layer's name.
_PATTERN = re.compile(r"[\w.\-\\^$|]*([*+?][\w.\-\\^$|]*){0,3}")
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdaptedLayer:
    """One linear layer with its LoRA factors: a (r, d_in), b (d_out, r) or None when b = 0."""

    name: str
    module: nn.Module
    a: Tensor
    b: Tensor | None
    scale: float


def fresh_adapter(model: Any, rank: int, seed: int) -> list[AdaptedLayer]:
    """Untrained LoRA on all linear layers of the decoder blocks: b = 0, scale 1, a like PEFT's.

    Raises:
        ModelError: a layer of the blocks is neither linear nor a norm; it is named.
    """
    layers = []
    for name, module in _linear_layers(model):
        d_in = _d_in(module)
        generator = generator_of("fresh-adapter", str(seed), name)
        bound = d_in**-0.5
        a = (torch.rand(rank, d_in, generator=generator) * 2 - 1) * bound
        weight = module.weight
        layers.append(AdaptedLayer(name, module, a.to(weight.device, weight.dtype), None, 1.0))
    return layers


def generator_of(*names: str) -> torch.Generator:
    """A generator on the CPU whose numbers depend on these names, and not on what else is drawn."""
    return torch.Generator().manual_seed(int(fingerprint.of_text(*names)[:15], 16))


def trained_adapter(model: Any, folder: Path) -> list[AdaptedLayer]:
    """Let the model compute with a PEFT LoRA adapter, and return its factors.

    Raises:
        ModelError: not a LoRA adapter in safetensors, one for other layers than the model has,
            or a variant (DoRA, PiSSA, adapted embeddings or head, whole modules) not supported.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(
            "The adapter has no safetensors weights.",
            where=str(folder),
            allowed="a PEFT LoRA folder with adapter_config.json and adapter_model.safetensors",
        )
    _check_sizes(folder / "adapter_config.json")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_peft_weights(str(folder), device="cpu")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"The adapter cannot be read: {error}", where=str(folder)) from error
    _check_lora(config, folder)
    adapted = [
        (name, module)
        for name, module in _named_linear(model)
        if f"base_model.model.{name}.lora_A.weight" in weights
    ]
    used = {f"base_model.model.{name}.lora_{f}.weight" for name, _ in adapted for f in "AB"}
    if odd := sorted(weights.keys() ^ used):
        raise ModelError(
            f"The adapter has weights that fit no linear layer: {odd[0]}.",
            where=str(folder),
            allowed="LoRA on linear layers of this very target model, its head excepted",
        )
    layers = [_layer(name, module, config, weights) for name, module in adapted]
    for layer in layers:
        layer.module.register_forward_hook(_adding(layer))
    return layers


def _check_sizes(path: Path) -> None:
    """Ranks are whole numbers, alphas finite ones, and patterns simple: they are matched as regular
    expressions, of which some run for ever."""
    try:
        config = json.loads(path.read_text())
        ranks = [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
        alphas = [config.get("lora_alpha", 8), *(config.get("alpha_pattern") or {}).values()]
        patterns = [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"The adapter cannot be read: {error}", where=str(path)) from error
    odd = [each for each in ranks if type(each) is not int or not 0 < each <= _MOST_RANK]
    odd += [each for each in alphas if type(each) not in (int, float) or not 0 < each < math.inf]
    odd += [each for each in patterns if not _PATTERN.fullmatch(each)]
    if odd:
        raise ModelError(
            f"The adapter's settings have {odd[0]!r} where that cannot be.",
            where=str(path),
            allowed=f"ranks from 1 to {_MOST_RANK:,}, finite alphas above 0, and patterns without"
            " groups and with three repetitions at most",
        )


def _layer(name: str, module: nn.Module, config: Any, weights: dict[str, Tensor]) -> AdaptedLayer:
    a = weights[f"base_model.model.{name}.lora_A.weight"]
    b = weights[f"base_model.model.{name}.lora_B.weight"]
    rank, alpha = _rank_and_alpha(name, config)
    if (ranks := {len(a), b.shape[1]}) != {rank}:
        raise ModelError(
            f"The adapter's settings give the layer {name} rank {rank}; its weights have "
            f"{' and '.join(map(str, sorted(ranks)))}.",
            allowed="settings and weights that were saved together",
        )
    fits = d_out(module), _d_in(module)
    if (len(b), a.shape[1]) != fits:
        raise ModelError(
            f"The adapter fits a layer {name} of shape {(len(b), a.shape[1])}; "
            f"the target model's has {fits}.",
            allowed="an adapter that was trained on this very target model",
        )
    scale = alpha / (rank**0.5 if config.use_rslora else rank)
    weight: Any = module.weight
    place = {"device": weight.device, "dtype": weight.dtype}
    return AdaptedLayer(name, module, a.to(**place), b.to(**place), scale)


def _adding(layer: AdaptedLayer) -> Any:
    def on_forward(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert layer.b is not None
        added = functional.linear(functional.linear(inputs[0], layer.a), layer.b)
        # In float32: a sum in bfloat16 would round the adapter away as its weights do.
        return output + layer.scale * added.float()

    return on_forward


def _rank_and_alpha(name: str, config: Any) -> tuple[int, float]:
    def pick(pattern: dict[str, Any], default: Any) -> Any:
        # PEFT reads these keys as regular expressions for the end of a layer's name.
        hits = [value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", name)]
        return hits[0] if hits else default

    return pick(config.rank_pattern, config.r), pick(config.alpha_pattern, config.lora_alpha)


def _check_lora(config: Any, folder: Path) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    extras = [name for name in _VARIANTS if getattr(config, name, None)]
    if (init := getattr(config, "init_lora_weights", True)) not in _PLAIN_INITS:
        extras.append(f"init_lora_weights={init}")
    if kind != "LORA" or extras:
        raise ModelError(
            f"This kind of adapter is not supported: {kind} {' '.join(extras)}".rstrip() + ".",
            where=str(folder),
            allowed="plain LoRA on linear layers (rank and alpha patterns and rsLoRA included)",
        )


def _named_linear(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers but the head, which sees tokens of the loss only."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def _linear_layers(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers of the decoder blocks; any other layer with a matrix is an error."""
    prefix, blocks = _blocks(model)
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield f"{prefix}.{name}", module
        elif any(p.ndim > 1 for p in module.parameters(recurse=False)):
            raise ModelError(
                f"The layer {prefix}.{name} is a {type(module).__name__}, which cannot be adapted.",
                allowed="decoder blocks made of linear layers (nn.Linear, Conv1D) and norms",
                fix="choose another target model",
            )


def _blocks(model: Any) -> tuple[str, nn.ModuleList]:
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(
        f"No list of {count} decoder blocks was found in {type(model).__name__}.",
        allowed="a decoder whose blocks are one list of num_hidden_layers modules",
    )


def _d_in(module: nn.Module) -> int:
    weight: Any = module.weight
    return weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]


def d_out(module: Any) -> int:
    """Width of a linear layer's output."""
    return int(module.weight.shape[1 if isinstance(module, Conv1D) else 0])
