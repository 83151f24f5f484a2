"""Lengths alone, no text: the baseline that an aggregated correlation rewards and nobody prints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseLength:
    """A candidate's response length in characters, the same for every query: longer is higher.

    Nothing is fitted, the direction included: a correlation of -0.4 says as much as one of 0.4.
    """

    name: str = "response length"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32: characters."""
        row = np.array([len(sample.response) for sample in candidates], dtype=np.float32)
        return np.tile(row, (len(queries), 1))


@dataclass(frozen=True)
class LengthMap:
    """A linear map from five length features of query and candidate to their influence.

    With p = log(1 + characters of the prompt) and r = log(1 + characters of the response), a
    sample's features are f = (p, r, p², r², p·r), each standardised by the mean and standard
    deviation of the training samples of its side (a feature that does not vary there is 0), and
    g = (1, f). The score of candidate c for query q is the bilinear form g(q)ᵀ W g(c): an
    intercept, five features of each side and their 25 interactions, 36 numbers in all.

    `weights` (6, 6) float64, query by candidate; the means and scales are (5,) float64.
    """

    query_mean: Floats
    query_scale: Floats
    candidate_mean: Floats
    candidate_scale: Floats
    weights: Floats
    name: str = "length map"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32, in the unit of the truth that was fitted."""
        left = _design(_features(queries), self.query_mean, self.query_scale)
        right = _design(_features(candidates), self.candidate_mean, self.candidate_scale)
        return (left @ self.weights @ right.T).astype(np.float32)


def fit(
    train_queries: Sequence[Sample], train_candidates: Sequence[Sample], truth: ArrayLike
) -> LengthMap:
    """The `LengthMap` with the least squared error on `truth` (Q, N) of the training samples.

    Exact least squares over all Q·N pairs without ever listing them: as the features of a pair
    are the products of both sides' features, W = G_q⁺ · truth · (G_c⁺)ᵀ, where ⁺ is the
    pseudo-inverse; of several solutions it is the smallest one.

    Raises:
        DataError: no training sample, or a truth that is not finite.
        ValueError: the truth's shape is not (queries, candidates).
    """
    target = np.asarray(truth, dtype=np.float64)
    if target.shape != (len(train_queries), len(train_candidates)):
        raise ValueError(
            f"the truth is {target.shape} for {len(train_queries)} queries and "
            f"{len(train_candidates)} candidates"
        )
    if target.size == 0:
        raise DataError(
            "The length map has nothing to be fitted on.",
            allowed="at least one training query and one training candidate",
        )
    if not np.all(np.isfinite(target)):
        raise DataError("The influences to fit hold a number that is not finite.")
    query_features, candidate_features = _features(train_queries), _features(train_candidates)
    query_mean, query_scale = _standard(query_features)
    candidate_mean, candidate_scale = _standard(candidate_features)
    left = _design(query_features, query_mean, query_scale)
    right = _design(candidate_features, candidate_mean, candidate_scale)
    return LengthMap(
        query_mean=query_mean,
        query_scale=query_scale,
        candidate_mean=candidate_mean,
        candidate_scale=candidate_scale,
        weights=np.linalg.pinv(left) @ target @ np.linalg.pinv(right).T,
    )


def _features(samples: Sequence[Sample]) -> Floats:
    lengths = [(len(sample.prompt), len(sample.response)) for sample in samples]
    prompt, response = np.log1p(np.array(lengths, dtype=np.float64).reshape(-1, 2)).T
    return np.column_stack([prompt, response, prompt**2, response**2, prompt * response])


def _standard(features: Floats) -> tuple[Floats, Floats]:
    scale = features.std(axis=0)
    # A feature that never varied in training says nothing, however it varies later.
    constant = np.ptp(features, axis=0) == 0
    return features.mean(axis=0), np.where(constant, np.inf, scale)


def _design(features: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.column_stack([np.ones(len(features)), (features - mean) / scale])
