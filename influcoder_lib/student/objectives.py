"""What a training step sees, and what it is to lower: one class for each objective.

`Blocks` is the published one: blocks of cosines against blocks of influences. `Features` uses the
teacher's whole feature of every sample.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.student.draws import cycle, steps
from influcoder_lib.student.losses import feature_loss, reference_loss
from influcoder_lib.student.recipes import Recipe


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Queries (Q) and candidates (N) with the teacher's unit features (Q, D) and (N, D) float32,
    centred or not: influence is their cosine.

    Raises:
        DataError: no query, fewer than two candidates, features of another shape or dtype, or a
            feature that is not finite.
    """

    queries: list[Sample]
    candidates: list[Sample]
    query_features: np.ndarray
    candidate_features: np.ndarray

    def __post_init__(self) -> None:
        if len(self.queries) < 1 or len(self.candidates) < 2:
            raise DataError(
                f"There are {len(self.queries)} queries and {len(self.candidates)} candidates to "
                "distill from.",
                allowed="at least 1 query and 2 candidates in each split",
                fix="draw more candidates, or give more queries",
            )
        for name, samples, features in (
            ("queries", self.queries, self.query_features),
            ("candidates", self.candidates, self.candidate_features),
        ):
            shape = (len(samples), self.query_features.shape[-1])
            if features.shape != shape or features.dtype != np.float32:
                raise DataError(
                    f"The features of the {name} are {features.shape} {features.dtype}.",
                    allowed=f"{shape} float32, sample by number",
                )
            if not np.isfinite(features).all():
                raise DataError(f"A feature of the {name} is not finite.")

    @cached_property
    def influence(self) -> np.ndarray:
        """Influence (Q, N) float32 of every query on every candidate."""
        return self.query_features @ self.candidate_features.T


@dataclass(frozen=True)
class Step:
    """Samples to encode, and the loss of their vectors: differentiable, a scalar."""

    samples: list[Sample]
    loss: Callable[[Tensor], Tensor]


class Objective(Protocol):
    """A source of training steps."""

    def steps(
        self, train: TrainingSet, recipe: Recipe, dimension: int, generator: torch.Generator
    ) -> Iterator[Step]:
        """Endless steps for a student whose vectors have `dimension` numbers."""


class Blocks:
    """k queries by m candidates: their cosines against their influences (METHOD.md, section 3)."""

    def steps(
        self, train: TrainingSet, recipe: Recipe, dimension: int, generator: torch.Generator
    ) -> Iterator[Step]:
        """Draws as `draws.steps` makes them."""
        for rows, columns in steps(
            train.influence,
            recipe.queries_per_step,
            recipe.candidates_per_step,
            recipe.hard_share,
            generator,
        ):
            influence = torch.from_numpy(train.influence[np.ix_(rows, columns)])
            yield Step(_samples(train, rows, columns), _block_loss(influence, len(rows), recipe))


class Features:
    """k queries and m candidates, all alike: each vector against the sample's own feature in as few
    numbers as the vector has, and all pairs' cosines against those of the whole features."""

    def steps(
        self, train: TrainingSet, recipe: Recipe, dimension: int, generator: torch.Generator
    ) -> Iterator[Step]:
        """Both sides from permutations that cycle through all of them."""
        short = compress(train, dimension)
        whole = np.concatenate([train.query_features, train.candidate_features])
        queries = cycle(len(train.queries), recipe.queries_per_step, generator)
        candidates = cycle(len(train.candidates), recipe.candidates_per_step, generator)
        for rows, columns in zip(queries, candidates, strict=True):
            at = [*rows, *(len(train.queries) + column for column in columns)]
            targets, full = torch.from_numpy(short[at]), torch.from_numpy(whole[at])
            yield Step(_samples(train, rows, columns), _feature_loss(targets, full))


OBJECTIVES: dict[str, Objective] = {"blocks": Blocks(), "features": Features()}


def steps_per_epoch(train: TrainingSet, recipe: Recipe) -> int:
    """As many as show every candidate once, were they all drawn in turn."""
    return math.ceil(len(train.candidates) / recipe.candidates_per_step)


def compress(train: TrainingSet, dimension: int) -> np.ndarray:
    """Features (Q + N, dimension) float32, queries first, as unit vectors that keep the cosines as
    well as so few numbers can: projections on the leading right singular vectors, queries and
    candidates weighing the same in all. Numbers beyond the rank are 0."""
    features = np.concatenate([train.query_features, train.candidate_features])
    shares = np.repeat(
        [len(train.queries), len(train.candidates)], [len(train.queries), len(train.candidates)]
    )
    weights = 1 / np.sqrt(shares)
    weighted = features.astype(np.float64) * weights[:, None]
    values, vectors = np.linalg.eigh(weighted @ weighted.T)
    order = np.argsort(-values, kind="stable")[: min(dimension, len(values))]
    scales = np.sqrt(np.maximum(values[order], 0))
    short = np.zeros((len(features), dimension))
    short[:, : len(order)] = vectors[:, order] * scales / weights[:, None]
    norms = np.linalg.norm(short, axis=1, keepdims=True)
    return (short / np.where(norms > 0, norms, 1)).astype(np.float32)


def _samples(train: TrainingSet, rows: list[int], columns: list[int]) -> list[Sample]:
    return [train.queries[row] for row in rows] + [train.candidates[column] for column in columns]


def _block_loss(influence: Tensor, queries: int, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    def loss(vectors: Tensor) -> Tensor:
        cosines = vectors[:queries] @ vectors[queries:].T
        own = influence.to(vectors.device)
        return reference_loss(cosines, own, recipe.alpha, recipe.temperature)

    return loss


def _feature_loss(targets: Tensor, full: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(vectors: Tensor) -> Tensor:
        return feature_loss(vectors, targets.to(vectors.device), full.to(vectors.device))

    return loss
