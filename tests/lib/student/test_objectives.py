"""Training sets are checked, and compression keeps what few numbers can keep."""

import numpy as np
import pytest
import torch

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.student.objectives import OBJECTIVES, TrainingSet, compress, steps_per_epoch
from influcoder_lib.student.recipes import Recipe


def units(count: int, dimension: int, rank: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, rank)) @ np.random.default_rng(9).normal(
        size=(rank, dimension)
    )
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def made(queries: int, candidates: int, rank: int = 5) -> TrainingSet:
    names = [Sample(str(i), "p", f"r{i}") for i in range(queries + candidates)]
    return TrainingSet(
        names[:queries],
        names[queries:],
        units(queries, 40, rank, 0),
        units(candidates, 40, rank, 1),
    )


def test_influence_is_the_cosine_of_features() -> None:
    train = made(4, 9)
    np.testing.assert_array_equal(
        train.influence, train.query_features @ train.candidate_features.T
    )


@pytest.mark.parametrize("dimension", [5, 8, 96])
def test_numbers_as_many_as_the_rank_keep_every_cosine(dimension: int) -> None:
    train = made(7, 30)
    whole = np.concatenate([train.query_features, train.candidate_features])
    short = compress(train, dimension)
    assert short.shape == (37, dimension)
    assert short.dtype == np.float32
    np.testing.assert_allclose(short @ short.T, whole @ whole.T, atol=1e-5)


def test_both_sides_weigh_the_same_however_many_they_are() -> None:
    names = [Sample(str(i), "p", "r") for i in range(102)]
    queries = np.tile(np.eye(3, dtype=np.float32)[:1], (2, 1))
    candidates = np.tile(np.eye(3, dtype=np.float32)[1:2], (100, 1))
    candidates[:60] = np.eye(3, dtype=np.float32)[2]
    short = compress(TrainingSet(names[:2], names[2:], queries, candidates), 1)
    # One number goes to what all queries share: 1 of their weight, against 0.6 of the candidates'.
    np.testing.assert_allclose(np.abs(short[:2, 0]), 1, atol=1e-6)


def test_steps_show_every_candidate_once_an_epoch() -> None:
    train = made(5, 12)
    recipe = Recipe(queries_per_step=3, candidates_per_step=4)
    for objective in OBJECTIVES.values():
        steps = objective.steps(train, recipe, 8, torch.Generator().manual_seed(0))
        seen = [next(steps) for _ in range(steps_per_epoch(train, recipe))]
        assert all(len(step.samples) == 7 for step in seen)
        ids = [sample.sample_id for step in seen for sample in step.samples[3:]]
        assert sorted(ids) == sorted(sample.sample_id for sample in train.candidates)


def test_the_loss_of_features_is_zero_at_the_teacher_alone() -> None:
    train = made(5, 12)
    recipe = Recipe(queries_per_step=5, candidates_per_step=12)
    steps = OBJECTIVES["features"].steps(train, recipe, 8, torch.Generator().manual_seed(0))
    step = next(steps)
    order = {sample.sample_id: i for i, sample in enumerate([*train.queries, *train.candidates])}
    at = [order[sample.sample_id] for sample in step.samples]
    right = torch.from_numpy(compress(train, 8)[at])
    assert float(step.loss(right)) == pytest.approx(0, abs=1e-5)
    assert float(step.loss(right.roll(1, dims=0))) > 0.5


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
