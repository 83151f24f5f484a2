"""The kernel student: what it sees, keeps, saves and refuses, and that its regression is right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.kernel_ridge import KernelRidge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from influcoder_lib.errors import ModelError, SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import KernelHead, Role
from influcoder_lib.student.kernel import _ALPHAS, _factor, _span, distill_kernel, featurize, fit
from influcoder_lib.student.static import static_of
from influcoder_lib.student.training import EpochLog, TrainingSet
from tests.tiny import tiny_encoder

WORDS = ["red", "cat", "dog", "runs", "the", "."]
SAMPLES = [
    Sample("0", "the cat", "red dog ."),
    Sample("1", "", "dog"),
    Sample("2", "the cat runs the cat runs", "dog . red . dog . red ."),
    Sample("3", "red", "the cat"),
]


def made(seed: int, queries: int, candidates: int) -> TrainingSet:
    """Features that follow the words of the response, and how many of them there are."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(len(WORDS), 12)).astype(np.float32)

    def draw(count: int) -> tuple[list[Sample], np.ndarray]:
        rows = [generator.integers(0, len(WORDS), generator.integers(2, 9)) for _ in range(count)]
        texts = [[WORDS[i] for i in row] for row in rows]
        samples = [Sample(" ".join(t), t[0], " ".join(t[1:])) for t in texts]
        features = np.stack([directions[row[1:]].mean(axis=0) for row in rows])
        return samples, features / np.linalg.norm(features, axis=1, keepdims=True)

    (q, query_features), (c, candidate_features) = draw(queries), draw(candidates)
    return TrainingSet(q, c, query_features, candidate_features)


TRAIN, VALIDATION = made(0, 20, 60), made(1, 10, 30)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 24, "float32")


@pytest.fixture(scope="module")
def student(base: InfluenceEncoder) -> InfluenceEncoder:
    return fit(base, TRAIN, 24)[0]


def head_of(student: InfluenceEncoder) -> KernelHead:
    head = student.model[1]
    assert isinstance(head, KernelHead)
    return head


def test_it_follows_the_teacher_on_samples_that_it_never_saw(base: InfluenceEncoder) -> None:
    seen: list[EpochLog] = []
    result = distill_kernel(base, TRAIN, VALIDATION, 16, seen.append)
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


def test_the_same_training_gives_the_same_student_bit_for_bit(base: InfluenceEncoder) -> None:
    assert fit(base, TRAIN, 16)[0].fingerprint == fit(base, TRAIN, 16)[0].fingerprint


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


def test_describing_many_samples_keeps_no_hidden_states(
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


def test_the_penalty_has_the_least_leave_one_out_error(student: InfluenceEncoder) -> None:
    """By brute force: the regression without each candidate in turn, for every penalty."""
    regression = head_of(student).candidate
    kernel = regression.kernel(regression.support).double().numpy()
    span = _span(TRAIN.query_features, 15).astype(np.float64)
    wanted = TRAIN.candidate_features @ span
    centred = wanted - wanted.mean(axis=0)
    errors = []
    for alpha in _ALPHAS:
        total = 0.0
        for out in range(len(kernel)):
            rest = np.delete(np.arange(len(kernel)), out)
            inner = kernel[np.ix_(rest, rest)] + alpha * np.eye(len(rest))
            predicted = kernel[out, rest] @ np.linalg.solve(inner, centred[rest])
            total += np.square((centred[out] - predicted) @ (TRAIN.query_features @ span).T).sum()
        errors.append(total)
    best = _ALPHAS[int(np.argmin(errors))]
    dual = np.linalg.solve(kernel + best * np.eye(len(kernel)), centred)
    np.testing.assert_allclose(regression.dual.numpy(), dual, atol=1e-4)


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


def test_scores_are_in_proportion_to_the_predicted_influences(student: InfluenceEncoder) -> None:
    head = head_of(student)
    queries, candidates = student.encode_queries(SAMPLES), student.encode(SAMPLES)
    raw = head.query(featurize(student, SAMPLES, "query"))
    predicted = head.candidate(featurize(student, SAMPLES, "candidate"))
    assert (predicted.norm(dim=1) < 1).all()
    expected = torch.nn.functional.normalize(raw, dim=1) @ predicted.T / 2**0.5
    np.testing.assert_allclose(queries @ candidates.T, expected.numpy(), atol=1e-6)


def test_resemblance_is_the_cosine_of_last_layers_in_few_numbers(student: InfluenceEncoder) -> None:
    head = head_of(student)
    both = [head.embedding(featurize(student, each, "query")) for each in (TRAIN.queries, SAMPLES)]
    assert float((both[0] - both[0] @ head.basis @ head.basis.T).norm()) < 0.2 * len(both[0]) ** 0.5
    candidates = student.encode(SAMPLES)
    alike = candidates[:, head.influencing : -1] * 2**0.5
    np.testing.assert_allclose(alike, (both[1] @ head.basis).numpy(), atol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_blend_ranks_by_both_in_units_of_their_spreads(
    student: InfluenceEncoder, share: float
) -> None:
    head = head_of(student)
    candidates = student.encode(VALIDATION.candidates)
    influence = student.encode_queries(SAMPLES) @ candidates.T
    alike = head.embedding(featurize(student, SAMPLES, "query")) @ head.basis
    resemblance = alike.numpy() @ candidates[:, head.influencing : -1].T
    spreads = head.spreads.numpy()
    expected = (1 - share) * influence / spreads[0] + share * resemblance / spreads[1]
    blended = student.encode_queries(SAMPLES, share)
    np.testing.assert_allclose(np.linalg.norm(blended, axis=1), 1, atol=1e-6)
    found = blended @ candidates.T
    scale = (found * expected).sum(axis=1) / np.square(expected).sum(axis=1)
    np.testing.assert_allclose(found, scale[:, None] * expected, atol=1e-5)


def test_spreads_are_those_of_scores_on_samples_left_out(student: InfluenceEncoder) -> None:
    spreads = head_of(student).spreads.numpy()
    scores = student.encode_queries(VALIDATION.queries) @ student.encode(VALIDATION.candidates).T
    assert spreads[0] == pytest.approx(scores.std() * 2**0.5, rel=0.5)


def test_vectors_are_of_unit_length_and_of_the_wanted_dimension(student: InfluenceEncoder) -> None:
    for vectors in (student.encode(SAMPLES), student.encode_queries(SAMPLES)):
        assert vectors.shape == (4, 24)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_vector_does_not_depend_on_the_neighbours_in_its_batch(student: InfluenceEncoder) -> None:
    together = student.encode(SAMPLES)
    alone = np.concatenate([student.encode([sample]) for sample in SAMPLES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    one_by_one = student.copy()
    one_by_one.budget.tokens = 1
    np.testing.assert_allclose(together, one_by_one.encode(SAMPLES), atol=1e-5)


def test_padded_and_unpadded_rows_give_the_same_vectors(student: InfluenceEncoder) -> None:
    padded = student.copy()
    padded.model[0].can_flatten_inputs = False
    np.testing.assert_allclose(padded.encode(SAMPLES), student.encode(SAMPLES), atol=1e-5)


def test_pools_are_the_means_of_the_layers_over_each_part(student: InfluenceEncoder) -> None:
    def layers(batch):
        return student.model[0](dict(batch.inputs))["all_layer_embeddings"]

    ((_, states),) = student.compute(SAMPLES[:1], "candidate", layers)
    # start, the, cat, end, red, dog, ., end
    expected = torch.cat(
        [
            torch.nn.functional.layer_norm(states[layer][0, part].mean(0), (32,))
            for layer in (0, 1, 2)
            for part in (slice(1, 3), slice(4, 7))
        ]
    )
    found = featurize(student, SAMPLES[:1], "candidate")[0, : len(expected)]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_prompt_and_response_are_told_apart(student: InfluenceEncoder) -> None:
    one, other = student.encode([Sample("a", "the cat", "dog"), Sample("b", "dog", "the cat")])
    assert one @ other < 0.9999


def test_lengths_beyond_the_window_are_still_told_apart(student: InfluenceEncoder) -> None:
    texts = ["dog " * 40, "dog " * 400]
    (one, other), truncated = student.read([Sample(t, "cat", t) for t in texts], "candidate")
    assert truncated.all()
    assert one @ other < 0.99999


@pytest.mark.parametrize(
    ("prompt", "response", "kept"),
    [(3, 4, (3, 4)), (30, 30, (11, 10)), (30, 2, (19, 2)), (2, 30, (2, 19)), (0, 30, (0, 21))],
)
def test_the_response_keeps_at_least_half_and_the_prompt_loses_its_head(
    student: InfluenceEncoder, prompt: int, response: int, kept: tuple[int, int]
) -> None:
    cut = student._reader._fit(list(range(prompt)), list(range(response)))
    assert (len(cut[0]), len(cut[1])) == kept
    assert cut[0] == list(range(prompt))[prompt - kept[0] :]
    assert cut[1] == list(range(response))[: kept[1]]


def test_the_least_window_has_room_for_a_token_of_each_part(student: InfluenceEncoder) -> None:
    model = student.copy().model
    with pytest.raises(SettingsError, match=r"(?s)cannot read 4 tokens.*5 to 64 tokens"):
        InfluenceEncoder(model, 4)
    cut = InfluenceEncoder(model, 5)._reader._fit([1, 2, 3], [4, 5, 6])
    assert cut == ([3], [4])


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


def test_it_is_saved_and_loaded_with_its_head(student: InfluenceEncoder, tmp_path: Path) -> None:
    student.save(tmp_path / "saved")
    loaded = InfluenceEncoder.load(tmp_path / "saved", 24, "float32")
    assert loaded.fingerprint == student.fingerprint
    np.testing.assert_array_equal(loaded.encode(SAMPLES), student.encode(SAMPLES))
    np.testing.assert_array_equal(loaded.encode_queries(SAMPLES), student.encode_queries(SAMPLES))
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_a_head_outside_the_folder_is_refused(student: InfluenceEncoder, tmp_path: Path) -> None:
    student.save(tmp_path / "saved")
    listed = tmp_path / "saved" / "modules.json"
    modules = json.loads(listed.read_text())
    modules[1]["path"] = "../elsewhere"
    listed.write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="outside the folder"):
        InfluenceEncoder.load(tmp_path / "saved", 24)


def test_a_static_encoder_has_no_parts(base: InfluenceEncoder) -> None:
    with pytest.raises(ModelError, match="cannot be told apart"):
        fit(static_of(base), TRAIN, 16)
