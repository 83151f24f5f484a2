"""What every way of training an encoder takes and gives: training sets, its log, its result."""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from influcoder_lib.errors import DataError
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder


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


def validated(
    student: InfluenceEncoder,
    validation: TrainingSet,
    epoch: int,
    loss: float | None,
    started: float,
) -> EpochLog:
    """The log of an epoch that began at `started`, on the clock of `time.perf_counter`."""
    cosines = student.encode_queries(validation.queries) @ student.encode(validation.candidates).T
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
