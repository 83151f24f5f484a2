"""Training sets are checked, and influence is what their features say."""

import numpy as np
import pytest

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.student.training import TrainingSet


def made(queries: int, candidates: int) -> TrainingSet:
    names = [Sample(str(i), "p", f"r{i}") for i in range(queries + candidates)]
    features = np.random.default_rng(0).normal(size=(len(names), 40)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return TrainingSet(names[:queries], names[queries:], features[:queries], features[queries:])


def test_influence_is_the_cosine_of_features() -> None:
    train = made(4, 9)
    expected = [[q @ c for c in train.candidate_features] for q in train.query_features]
    np.testing.assert_allclose(train.influence, expected, atol=1e-6)


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((3, 40), dtype=np.float64),
        np.full((3, 40), np.nan, dtype=np.float32),
    ],
)
def test_features_that_do_not_fit_the_samples_are_refused(features: np.ndarray) -> None:
    train = made(2, 3)
    with pytest.raises(DataError, match="of the candidates"):
        TrainingSet(train.queries, train.candidates, train.query_features, features)


@pytest.mark.parametrize(("queries", "candidates"), [(0, 3), (2, 1)])
def test_too_few_samples_are_refused_with_their_numbers(queries: int, candidates: int) -> None:
    with pytest.raises(DataError, match=f"{queries} queries and {candidates} candidates"):
        made(queries, candidates)
