"""Distillation: train an influence encoder to follow the teacher's influences."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from influcoder_lib import memory
from influcoder_lib.errors import SettingsError
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import PartsHead
from influcoder_lib.student.objectives import OBJECTIVES, Step, TrainingSet, steps_per_epoch
from influcoder_lib.student.recipes import Recipe


@dataclass(frozen=True)
class EpochLog:
    """One epoch: mean training loss (None before training), fidelity on validation, seconds."""

    epoch: int
    loss: float | None
    validation_per_query: float
    validation_aggregated: float
    seconds: float

    @property
    def validation(self) -> float:
        """What the best epoch is chosen by: the mean of per-query and aggregated fidelity."""
        return (self.validation_per_query + self.validation_aggregated) / 2


@dataclass(frozen=True, eq=False)
class Distilled:
    """The encoder with the weights of the best epoch, and the log of all epochs."""

    encoder: InfluenceEncoder
    log: list[EpochLog]
    best_epoch: int


def distill(
    encoder: InfluenceEncoder,
    train: TrainingSet,
    validation: TrainingSet,
    recipe: Recipe,
    seed: int,
    progress: Callable[[EpochLog], None] = lambda log: None,
) -> Distilled:
    """Train a copy of `encoder` on `train`; the epoch best on `validation` is the result.

    An epoch is ceil(N / candidates_per_step) steps. Each takes `queries_per_step` queries and
    `candidates_per_step` candidates, from seeded permutations that cycle through all of them (one
    permutation's rest and the next one's start may share a step), encodes them and lowers the loss
    of the recipe's objective. Adam with decoupled weight decay; the learning rate rises linearly
    for the `warmup` share of the steps and falls linearly to 0. A head of ours, which starts from
    nothing, learns `head_rate` times as fast. Validation encodes as the encoder is used: in its own
    precision.

    Validation follows every epoch and precedes the first: epoch 0, the encoder as it came, is a
    contender, and of equal epochs the earliest wins. Nothing is trained on `validation`.

    Equal seed and inputs give equal weights, bit for bit, on the CPU with the same number of
    threads. The global random state is left as it was.

    Raises:
        SettingsError: the training diverged.
    """
    student = encoder.copy()
    with _reproducible(seed):
        weights, log, best = _distill(student, train, validation, recipe, seed, progress)
    result = encoder.copy()
    result.model.load_state_dict(weights)
    result.model.eval()
    return Distilled(result, log, best)


def _distill(
    student: InfluenceEncoder,
    train: TrainingSet,
    validation: TrainingSet,
    recipe: Recipe,
    seed: int,
    progress: Callable[[EpochLog], None],
) -> tuple[dict[str, torch.Tensor], list[EpochLog], int]:
    """Weights of the best epoch, the log of all, and which was best."""
    per_epoch = steps_per_epoch(train, recipe)
    optimizer = _optimizer(student, recipe)
    schedule = _schedule(optimizer, recipe.epochs * per_epoch, recipe.warmup)
    generator = torch.Generator().manual_seed(seed)
    steps = OBJECTIVES[recipe.objective].steps(train, recipe, student.dimension, generator)
    log = [_validated(student, validation, 0, None, time.perf_counter())]
    progress(log[0])
    best, weights = log[0], _weights(student)
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        _select_dropout(student, recipe)
        losses = []
        for step in islice(steps, per_epoch):
            losses.append(_step(student, step, recipe, optimizer))
            schedule.step()
            memory.release()
        log.append(_validated(student, validation, epoch, float(np.mean(losses)), started))
        progress(log[-1])
        if log[-1].validation > best.validation:
            best, weights = log[-1], _weights(student)
    return weights, log, best.epoch


def _select_dropout(student: InfluenceEncoder, recipe: Recipe) -> None:
    student.model.train(recipe.dropout == "own")
    for head in _heads(student):
        head.train(recipe.dropout != "none")


def _heads(student: InfluenceEncoder) -> list[PartsHead]:
    return [module for module in student.model if isinstance(module, PartsHead)]


def _optimizer(student: InfluenceEncoder, recipe: Recipe) -> torch.optim.AdamW:
    own = [weight for head in _heads(student) for weight in head.parameters()]
    known = {id(weight) for weight in own}
    rest = [weight for weight in student.model.parameters() if id(weight) not in known]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if own:
        groups.append({"params": own, "lr": recipe.learning_rate * recipe.head_rate})
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _step(
    student: InfluenceEncoder, step: Step, recipe: Recipe, optimizer: torch.optim.Optimizer
) -> float:
    with student.computing_in(recipe.precision):
        vectors = student.forward(step.samples)
    loss = step.loss(vectors)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise SettingsError(
            "The training diverged: its loss is not a finite number.",
            where=f"recipe {recipe.name!r}, learning_rate {recipe.learning_rate}",
            fix="lower the learning rate",
        )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.model.parameters(), recipe.gradient_clip)
    optimizer.step()
    return value


def _validated(
    student: InfluenceEncoder,
    validation: TrainingSet,
    epoch: int,
    loss: float | None,
    started: float,
) -> EpochLog:
    cosines = student.encode(validation.queries) @ student.encode(validation.candidates).T
    truth = validation.influence
    return EpochLog(
        epoch=epoch,
        loss=loss,
        validation_per_query=float(spearman_rows(cosines, truth).mean()),
        validation_aggregated=float(
            spearman_rows(cosines.mean(axis=0)[None], truth.mean(axis=0)[None])[0]
        ),
        seconds=time.perf_counter() - started,
    )


def _schedule(
    optimizer: torch.optim.Optimizer, total: int, warmup: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then linear decay; no step has a rate of exactly 0."""
    rising = round(warmup * total)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return max(total - step, 0) / (total - rising)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _weights(student: InfluenceEncoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in student.model.state_dict().items()}


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed the global generator (dropout uses it) and ask for deterministic kernels, for a while.

    Where a device has no deterministic kernel torch warns and goes on.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
