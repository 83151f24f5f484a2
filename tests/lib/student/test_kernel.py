"""The kernel student: that its regression is right, follows the teacher, and what it refuses."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.kernel_ridge import KernelRidge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from influcoder_lib.errors import ModelError
from influcoder_lib.samples import Role, Sample
from influcoder_lib.student import kernel
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import blend
from influcoder_lib.student.kernel import (
    _ALPHAS,
    _TOLD,
    _factor,
    _span,
    distill_kernel,
    featurize,
    fit,
)
from influcoder_lib.student.static import static_of
from influcoder_lib.student.training import EpochLog
from tests.lib.student.kernel_students import SAMPLES, TRAIN, VALIDATION, head_of, made


def test_it_follows_the_teacher_on_samples_that_it_never_saw(words: InfluenceEncoder) -> None:
    seen: list[EpochLog] = []
    result = distill_kernel(words, TRAIN, VALIDATION, 16, seen.append)
    assert result.log == seen
    assert [(each.epoch, each.loss is None) for each in seen] == [(0, True), (1, False)]
    assert result.best_epoch == 1
    assert seen[1].validation_per_query > max(0.5, seen[0].validation_per_query + 0.2)
    assert seen[1].loss is not None
    assert seen[1].loss < 0.8


def test_the_untrained_encoder_stays_where_it_is_better(base: InfluenceEncoder) -> None:
    flattered = replace(
        VALIDATION,
        query_features=base.encode(VALIDATION.queries),
        candidate_features=base.encode(VALIDATION.candidates),
    )
    result = distill_kernel(base, TRAIN, flattered, 16)
    assert result.best_epoch == 0
    assert result.encoder.fingerprint == base.fingerprint


def test_the_same_training_gives_the_same_student_bit_for_bit(words: InfluenceEncoder) -> None:
    assert fit(words, TRAIN, 16)[0].fingerprint == fit(words, TRAIN, 16)[0].fingerprint


@pytest.mark.parametrize("role", ["query", "candidate"])
def test_its_predictions_are_those_of_a_kernel_ridge_regression(
    student: InfluenceEncoder, role: Role
) -> None:
    own, features = {
        "query": (TRAIN.queries, TRAIN.query_features),
        "candidate": (TRAIN.candidates, TRAIN.candidate_features),
    }[role]
    regression = head_of(student).get_submodule(role)
    kernel, new = (
        regression.kernel(regression.scaled(featurize(student, each, role))).numpy()
        for each in (own, VALIDATION.candidates)
    )
    wanted = features @ _span(TRAIN.query_features, 15)
    found = regression(featurize(student, VALIDATION.candidates, role)).numpy()
    misses = []
    for alpha in _ALPHAS:
        ridge = KernelRidge(alpha=alpha, kernel="precomputed")
        ridge.fit(kernel, wanted - wanted.mean(axis=0))
        misses.append(np.abs(ridge.predict(new) + wanted.mean(axis=0) - found).max())
    assert min(misses) < 1e-4


def test_features_of_many_samples_keep_no_hidden_states(
    student: InfluenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, compute = [], student.compute

    def noted(*given):
        for batch, found in compute(*given):
            kept.append(batch)
            yield batch, found

    monkeypatch.setattr(student, "compute", noted)
    featurize(student, SAMPLES, "candidate")
    values = [value for batch in kept for value in batch.inputs.values()]
    assert not any(isinstance(value, tuple) for value in values)
    assert not any(torch.is_tensor(value) and value.ndim > 2 for value in values)


def test_the_span_keeps_influences_on_the_queries() -> None:
    span = _span(TRAIN.query_features, 15)
    short = (TRAIN.query_features @ span) @ (TRAIN.candidate_features @ span).T
    np.testing.assert_allclose(short, TRAIN.influence, atol=1e-5)
    # Twelve directions are all there are.
    np.testing.assert_array_equal(span[:, 12:], 0)


def test_penalty_and_weight_have_the_least_leave_one_out_error(student: InfluenceEncoder) -> None:
    """By brute force: the regression without each candidate in turn, for every pair of both."""
    regression = head_of(student).candidate
    pools, outright = (each.double() for each in regression.kernels(regression.support))
    span = _span(TRAIN.query_features, 15).astype(np.float64)
    wanted = TRAIN.candidate_features @ span
    centred = wanted - wanted.mean(axis=0)
    errors = {}
    for told, alpha in itertools.product(_TOLD, _ALPHAS):
        matrix, total = blend(pools, outright, told).numpy(), 0.0
        for out in range(len(matrix)):
            rest = np.delete(np.arange(len(matrix)), out)
            inner = matrix[np.ix_(rest, rest)] + alpha * np.eye(len(rest))
            predicted = matrix[out, rest] @ np.linalg.solve(inner, centred[rest])
            total += np.square((centred[out] - predicted) @ (TRAIN.query_features @ span).T).sum()
        errors[told, alpha] = total
    told, alpha = min(errors, key=lambda pair: errors[pair])
    assert regression.told == told
    matrix = blend(pools, outright, told).numpy()
    dual = np.linalg.solve(matrix + alpha * np.eye(len(matrix)), centred)
    np.testing.assert_allclose(regression.dual.numpy(), dual, atol=1e-4)


def test_a_weight_is_chosen_on_a_few_samples_and_used_for_all(
    words: InfluenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decomposed: list[np.ndarray] = []
    ridge = kernel._ridge

    def noted(matrix: np.ndarray, *rest: np.ndarray) -> object:
        decomposed.append(matrix)
        return ridge(matrix, *rest)

    monkeypatch.setattr(kernel, "_ridge", noted)
    monkeypatch.setattr(kernel, "_CHOOSING", 7)
    regression = head_of(fit(words, TRAIN, 16)[0]).candidate
    assert [len(each) for each in decomposed] == [7] * 4 + [20] + [7] * 4 + [60]
    whole = decomposed[-1]
    rows = [0, 8, 17, 25, 34, 42, 51]
    chosen = decomposed[5 + _TOLD.index(regression.told)]
    np.testing.assert_array_equal(chosen, whole[np.ix_(rows, rows)])


def test_lengths_weigh_more_where_they_tell_more(base: InfluenceEncoder) -> None:
    def angles(samples: Sequence[Sample]) -> np.ndarray:
        turned = np.array([len(each.response.split()) / 4 for each in samples])
        return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)

    by_length = replace(
        TRAIN, query_features=angles(TRAIN.queries), candidate_features=angles(TRAIN.candidates)
    )
    for words in (base, static_of(base)):
        told = [head_of(fit(words, each, 16)[0]).candidate.told for each in (by_length, TRAIN)]
        assert told[0] > told[1]


def test_scaling_takes_no_tensor_larger_than_the_distances(student: InfluenceEncoder) -> None:
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, call, _, args=(), kwargs=None):
            found = call(*args, **(kwargs or {}))
            sizes.extend(t.nbytes for t in tree_leaves(found) if torch.is_tensor(t))
            return found

    given = featurize(student, TRAIN.candidates, "candidate").repeat(4, 1)
    with Sizes():
        _factor(head_of(student).candidate, given)
    assert max(sizes) == max(given.nbytes, len(given) ** 2 * 4)


def test_the_median_of_pairs_that_differ_has_half_an_exponent(student: InfluenceEncoder) -> None:
    given = featurize(student, TRAIN.candidates, "candidate")
    regression = head_of(student).candidate
    scaled = (given * _factor(regression, given)).double().numpy()
    ends = np.cumsum(regression.groups)[:-1]
    for piece in np.split(scaled, ends, axis=1):
        distances = pdist(piece, "sqeuclidean")
        differing = np.sort(distances[distances > 1e-4])
        assert differing[(len(differing) - 1) // 2] == pytest.approx(0.5, rel=0.05)


def test_prompts_that_are_mostly_equal_still_tell_the_others_apart(base: InfluenceEncoder) -> None:
    kept = TRAIN.candidates[::4]
    blank = [replace(each, prompt="") for each in TRAIN.candidates if each not in kept]
    train = replace(TRAIN, candidates=[*kept, *blank])
    student = fit(base, train, 24)[0]
    regression = head_of(student).candidate
    given = regression.scaled(featurize(student, train.candidates, "candidate"))
    prompts = given.split(regression.groups, dim=1)[0].double().numpy()
    equal = pdist(prompts[len(kept) :], "sqeuclidean")
    other = pdist(prompts[: len(kept)], "sqeuclidean")
    assert equal.max() < 1e-4
    assert 0.1 < np.median(other) < 5


def test_spreads_are_those_of_scores_on_samples_left_out(student: InfluenceEncoder) -> None:
    spreads = head_of(student).spreads.numpy()
    scores = student.encode_queries(VALIDATION.queries) @ student.encode(VALIDATION.candidates).T
    assert spreads[0] == pytest.approx(scores.std() * 2**0.5, rel=0.5)


@pytest.mark.parametrize(("queries", "candidates"), [(1, 2), (2, 3)])
def test_the_least_training_set_is_enough(
    base: InfluenceEncoder, queries: int, candidates: int
) -> None:
    student, loss = fit(base, made(3, queries, candidates), 8)
    assert np.isfinite(loss)
    assert np.isfinite(student.encode(SAMPLES)).all()
    np.testing.assert_allclose(
        np.linalg.norm(student.encode_queries(SAMPLES), axis=1), 1, atol=1e-5
    )


def test_an_encoder_without_tokens_of_its_own_is_refused(base: InfluenceEncoder) -> None:
    other = base.copy()
    other.model[0] = torch.nn.Identity()
    with pytest.raises(ModelError, match="cannot be told apart"):
        fit(other, TRAIN, 16)
