"""Warm-up: a short LoRA fine-tune of the target model, with what its optimiser knew along the way.

LESS begins with one (Xia et al. 2024, arXiv 2402.04333, section 4.1). An epoch ends in a
checkpoint: a folder with the adapter as PEFT saves it, which `adapters.trained_adapter` reads, and
with Adam's moments. The loss is that of the gradients: the mean cross-entropy of a response's
tokens, averaged over samples.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from influcoder_lib import fingerprint
from influcoder_lib.budget import TokenBudget
from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.schedule import warmup_then_decay
from influcoder_lib.target_model import TargetModel
from influcoder_lib.teacher.adapters import AdaptedLayer, fresh_adapter
from influcoder_lib.teacher.gradients import backward
from influcoder_lib.teacher.tokens import Span, span_encoder

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Of a checkpoint's files, those that PEFT knows."""
_BETAS = (0.9, 0.999)
# Share of all steps in which the learning rate rises; it falls to zero in the others.
_WARMUP_SHARE = 0.03


@dataclass(frozen=True)
class WarmupSettings:
    """How the adapter is trained: the factor A as a fresh adapter of this rank and seed has it, B
    from zero, the samples in an order of the same seed."""

    rank: int = 16
    seed: int = 0
    epochs: int = 4
    samples_per_step: int = 8
    learning_rate: float = 2e-4


@dataclass(frozen=True)
class Checkpoint:
    """The end of an epoch: its mean learning rate, and the steps that Adam has taken so far."""

    folder: Path
    learning_rate: float
    steps: int
    betas: tuple[float, float]

    def moments(self) -> dict[str, Tensor]:
        """Adam's moments as it keeps them, float32: `first.` and `second.` and a factor's name.

        A factor A is (r, d_in), B (d_out, r).
        """
        return load_file(self.folder / "moments.safetensors")

    def fingerprint(self) -> str:
        """Fingerprint of all that was learnt."""
        names = ("adapter_model.safetensors", "moments.safetensors", "training.json")
        return fingerprint.of_pairs(
            (name, fingerprint.of_file(self.folder / name)) for name in names
        )


def warm_up(
    target: TargetModel,
    samples: Sequence[Sample],
    window: int,
    tokens_per_batch: int,
    settings: WarmupSettings,
    folder: Path,
    say: Callable[[str], None],
) -> list[Checkpoint]:
    """Train an adapter on the samples and write its checkpoints into a new `folder`, all or none.

    The target model is spent: the adapter stays in it. Samples whose response has no token are left
    out, and counted to `say`.

    Raises:
        DataError: no sample is left.
        ModelError: the model has layers that cannot be adapted, or a sample does not fit into
            memory, even alone.
        SettingsError: the window has more tokens than the model has places for.
    """
    encoded = span_encoder(target, window).encode(samples)
    spans = [span for span in encoded if span.usable]
    if not spans:
        raise DataError(
            f"There is nothing to warm up on: of {len(samples)} samples, none is usable.",
            allowed="at least one sample whose response has a token",
        )
    if len(spans) < len(encoded):
        say(f"warm-up: {len(encoded) - len(spans)} responses without a token are left out")
    layers = fresh_adapter(target.model, settings.rank, settings.seed)
    wrapped = _wrap(target.model, layers)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    budget = TokenBudget(tokens_per_batch, "target_model.window")
    _train(_Run(target, wrapped, layers, spans, budget, settings), part, say)
    part.rename(folder)
    return checkpoints(folder)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a warm-up, first epoch first."""
    found = []
    for each in sorted(folder.glob("epoch-*"), key=lambda path: int(path.name[len("epoch-") :])):
        state = json.loads((each / "training.json").read_text())
        found.append(
            Checkpoint(each, state["learning_rate"], state["steps"], tuple(state["betas"]))
        )
    return found


@dataclass(frozen=True)
class _Run:
    target: TargetModel
    wrapped: Any
    layers: list[AdaptedLayer]
    spans: list[Span]
    budget: TokenBudget
    settings: WarmupSettings


def _train(run: _Run, folder: Path, say: Callable[[str], None]) -> None:
    settings, count = run.settings, len(run.spans)
    factors = _factors(run.wrapped, run.layers)
    optimizer = torch.optim.AdamW(
        factors.values(), lr=settings.learning_rate, betas=_BETAS, weight_decay=0.0
    )
    steps = settings.epochs * math.ceil(count / settings.samples_per_step)
    schedule = warmup_then_decay(optimizer, steps, _WARMUP_SHARE)
    order = np.random.default_rng(settings.seed)
    taken = 0
    for epoch in range(1, settings.epochs + 1):
        rates = []
        mixed = [run.spans[i] for i in order.permutation(count)]
        for start in range(0, count, settings.samples_per_step):
            _gradient(run, factors, mixed[start : start + settings.samples_per_step])
            rates.append(float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        taken += len(rates)
        state = {"learning_rate": float(np.mean(rates)), "steps": taken, "betas": list(_BETAS)}
        _save(folder / f"epoch-{epoch}", run.wrapped, factors, optimizer, state)
        say(f"warm-up: epoch {epoch} of {settings.epochs}, {count} samples each")


def _gradient(run: _Run, factors: dict[str, Tensor], spans: list[Span]) -> None:
    """Leave the mean gradient of the spans on the factors."""

    def one_batch(rows: np.ndarray) -> list[Tensor | None]:
        # One that did not fit may have left a part of its gradient.
        for factor in factors.values():
            factor.grad = None
        backward(run.target, [spans[row] for row in rows])
        return [factor.grad for factor in factors.values()]

    lengths = [len(span.ids) for span in spans]
    found = list(run.budget.spend(lengths, one_batch, lambda _: "a sample of the warm-up"))
    for factor, parts in zip(factors.values(), zip(*found, strict=True), strict=True):
        own = [part for part in parts if part is not None]
        factor.grad = torch.stack(own).sum(dim=0) / len(spans) if own else None


def _wrap(model: Any, layers: Sequence[AdaptedLayer]) -> Any:
    """PEFT's modules around the adapted layers, with these factors, scale 1."""
    from peft import LoraConfig, get_peft_model

    rank = len(layers[0].a)
    names = [layer.name for layer in layers]
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    factors = _factors(wrapped, layers)
    for layer in layers:
        factors[f"{layer.name}.A"].data.copy_(layer.a)
    return wrapped.eval()


def _factors(wrapped: Any, layers: Sequence[AdaptedLayer]) -> dict[str, Tensor]:
    """PEFT's parameters by our factor names."""
    own = dict(wrapped.named_parameters())
    return {
        f"{layer.name}.{factor}": own[f"base_model.model.{layer.name}.lora_{factor}.default.weight"]
        for layer in layers
        for factor in "AB"
    }


def _save(
    folder: Path,
    wrapped: Any,
    factors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    config = wrapped.peft_config["default"]
    # Where the model lies is no part of what was learnt.
    config.base_model_name_or_path = None
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    adapter = {
        name: value.contiguous() for name, value in get_peft_model_state_dict(wrapped).items()
    }
    save_file(adapter, folder / "adapter_model.safetensors")
    moments = {
        # A layer that no sample goes through has never had a gradient, and so no moments.
        f"{kind}.{name}": optimizer.state[factor].get(key, torch.zeros_like(factor))
        for name, factor in factors.items()
        for kind, key in (("first", "exp_avg"), ("second", "exp_avg_sq"))
    }
    save_file(moments, folder / "moments.safetensors")
    (folder / "training.json").write_text(json.dumps(state))
