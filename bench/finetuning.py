"""A LoRA fine-tune of the target model, and the loss of replies under it."""

from collections.abc import Sequence

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional

from influcoder_lib.budget import batches
from influcoder_lib.models import TargetModel
from influcoder_lib.samples import Sample
from influcoder_lib.teacher.tokens import Span, SpanEncoder

_WINDOW = 192
_RANK = 16
_RATE = 1e-3
_SAMPLES_PER_STEP = 8
_TOKENS = 1024
_IGNORED = -100


def finetune(target: TargetModel, samples: Sequence[Sample], seed: int) -> None:
    """One epoch of AdamW on the samples in their order, the mean over responses of each one's mean
    loss a token; the model has the adapter afterwards."""
    torch.manual_seed(seed)
    config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules="all-linear")
    model = get_peft_model(target.model, config).train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_RATE)
    spans = _spans(target, samples)
    for start in range(0, len(spans), _SAMPLES_PER_STEP):
        step = spans[start : start + _SAMPLES_PER_STEP]
        for group in batches([len(each.ids) for each in step], _TOKENS):
            _losses(target, [step[row] for row in group]).sum().div(len(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def losses(target: TargetModel, samples: Sequence[Sample]) -> np.ndarray:
    """Mean loss a token of each sample's response, (n,) float64, in nats."""
    spans = _spans(target, samples)
    found = np.empty(len(spans))
    for group in batches([len(each.ids) for each in spans], _TOKENS):
        with torch.no_grad():
            found[group] = _losses(target, [spans[row] for row in group]).numpy()
    return found


def _spans(target: TargetModel, samples: Sequence[Sample]) -> list[Span]:
    return SpanEncoder(target.tokenizer, _WINDOW).encode(samples)


def _losses(target: TargetModel, spans: Sequence[Span]) -> Tensor:
    """Mean loss a token (n,) of each response."""
    longest = max(len(each.ids) for each in spans)
    ids = torch.zeros((len(spans), longest), dtype=torch.long)
    targets = torch.full((len(spans), longest), _IGNORED)
    for row, span in enumerate(spans):
        ids[row, : len(span.ids)] = torch.tensor(span.ids)
        start = max(1, span.loss_start)
        targets[row, start - 1 : len(span.ids) - 1] = torch.tensor(span.ids[start:])
    # Padding is on the right, where a causal decoder lets nothing flow back.
    with torch.autocast(target.model.device.type, torch.bfloat16):
        logits = target.model(input_ids=ids, use_cache=False).logits
    # Picking the rows of the loss out of the logits first would make the backward pass, which puts
    # them back one by one, many times slower.
    each = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=_IGNORED
    )
    return each.view(targets.shape).sum(dim=1) / (targets != _IGNORED).sum(dim=1)
