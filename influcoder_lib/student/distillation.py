"""Distillation by gradient descent: an encoder's own weights learn to follow the teacher."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from influcoder_lib import memory
from influcoder_lib.errors import SettingsError
from influcoder_lib.hardware import deterministic
from influcoder_lib.schedule import warmup_then_decay
from influcoder_lib.student.draws import steps
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.losses import reference_loss
from influcoder_lib.student.recipes import Recipe
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet, validated


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
    permutation's rest and the next one's start may share a step), encodes them and lowers the
    recipe's loss between the block of cosines and the block of influences. Adam with decoupled
    weight decay; the learning rate rises linearly for the `warmup` share of the steps and falls
    linearly to 0. Validation encodes as the encoder is used: in its own precision.

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
    steps_per_epoch = math.ceil(len(train.candidates) / recipe.candidates_per_step)
    optimizer = torch.optim.AdamW(
        student.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = warmup_then_decay(optimizer, recipe.epochs * steps_per_epoch, recipe.warmup)
    draws = steps(
        train.influence,
        recipe.queries_per_step,
        recipe.candidates_per_step,
        recipe.hard_share,
        torch.Generator().manual_seed(seed),
    )
    log = [validated(student, validation, 0, None, time.perf_counter())]
    progress(log[0])
    best, weights = log[0], _weights(student)
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        student.model.train(recipe.dropout == "own")
        losses = []
        for _ in range(steps_per_epoch):
            losses.append(_step(student, train, next(draws), recipe, optimizer))
            schedule.step()
            memory.release()
        log.append(validated(student, validation, epoch, float(np.mean(losses)), started))
        progress(log[-1])
        if log[-1].validation > best.validation:
            best, weights = log[-1], _weights(student)
    return weights, log, best.epoch


def _step(
    student: InfluenceEncoder,
    train: TrainingSet,
    draw: tuple[list[int], list[int]],
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
) -> float:
    rows, columns = draw
    samples = [train.queries[row] for row in rows] + [train.candidates[c] for c in columns]
    with student.computing_in(recipe.precision):
        vectors = student.forward(samples)
    influence = torch.from_numpy(train.influence[np.ix_(rows, columns)]).to(vectors.device)
    cosines = vectors[: len(rows)] @ vectors[len(rows) :].T
    loss = reference_loss(cosines, influence, recipe.alpha, recipe.temperature)
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


def _weights(student: InfluenceEncoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in student.model.state_dict().items()}


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed the global generator (dropout uses it) and ask for deterministic kernels for now."""
    with torch.random.fork_rng(), deterministic():
        torch.manual_seed(seed)
        yield
