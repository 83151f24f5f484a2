"""Distillation: it learns, it repeats bit for bit, it selects on validation and on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student.distillation import distill
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.recipes import RECIPES, Recipe
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet
from tests.tiny import tiny_encoder

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "runs", "sings", "sleeps"]
QUICK = Recipe(
    epochs=3, learning_rate=2e-3, queries_per_step=4, candidates_per_step=8, temperature=0.2
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 32)


def made(seed: int, queries: int, candidates: int) -> TrainingSet:
    """Samples of random words; their influence is the cosine of random directions of the words."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(len(WORDS), 4))

    def draw(count: int) -> tuple[list[Sample], np.ndarray]:
        words = generator.integers(0, len(WORDS), (count, 3))
        texts = [[WORDS[i] for i in row] for row in words]
        samples = [Sample(" ".join(t), t[0], " ".join(t[1:])) for t in texts]
        features = directions[words].sum(axis=1).astype(np.float32)
        return samples, features / np.linalg.norm(features, axis=1, keepdims=True)

    (q, query_features), (c, candidate_features) = draw(queries), draw(candidates)
    return TrainingSet(q, c, query_features, candidate_features)


TRAIN, VALIDATION = made(0, 12, 40), made(1, 6, 20)


def weights(result: Distilled) -> bytes:
    values = result.encoder.model.state_dict().values()
    return b"".join(value.numpy().tobytes() for value in values)


def test_training_raises_fidelity_on_samples_that_it_never_saw(encoder: InfluenceEncoder) -> None:
    seen: list[EpochLog] = []
    result = distill(encoder, TRAIN, VALIDATION, replace(QUICK, epochs=8), 0, seen.append)
    assert result.log == seen
    assert [entry.epoch for entry in seen] == list(range(9))
    assert seen[0].loss is None
    losses = [entry.loss for entry in seen[1:] if entry.loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    assert result.log[result.best_epoch].validation > seen[0].validation + 0.2


def test_the_best_epoch_s_weights_are_the_result(encoder: InfluenceEncoder) -> None:
    result = distill(encoder, TRAIN, VALIDATION, QUICK, 0)
    best = max(result.log, key=lambda entry: entry.validation)
    assert result.best_epoch == best.epoch
    again = distill(result.encoder, TRAIN, VALIDATION, replace(QUICK, epochs=1), 0)
    assert again.log[0].validation_per_query == pytest.approx(best.validation_per_query, abs=1e-6)
    assert again.log[0].validation_aggregated == pytest.approx(best.validation_aggregated, abs=1e-6)


def test_the_untrained_encoder_wins_when_training_only_harms(encoder: InfluenceEncoder) -> None:
    flattered = replace(
        VALIDATION,
        query_features=encoder.encode(VALIDATION.queries),
        candidate_features=encoder.encode(VALIDATION.candidates),
    )
    result = distill(encoder, TRAIN, flattered, QUICK, 0)
    assert result.best_epoch == 0
    assert result.encoder.fingerprint == encoder.fingerprint


def test_the_given_encoder_and_the_global_random_state_stay_as_they_were(
    encoder: InfluenceEncoder,
) -> None:
    before, state = encoder.fingerprint, torch.random.get_rng_state()
    result = distill(encoder, TRAIN, VALIDATION, QUICK, 0)
    assert encoder.fingerprint == before != result.encoder.fingerprint
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_equal_seeds_give_equal_weights_bit_for_bit(encoder: InfluenceEncoder) -> None:
    recipe = replace(QUICK, hard_share=0.25)
    first = distill(encoder, TRAIN, VALIDATION, recipe, 3)
    torch.rand(100)  # what others did with the global generator must not matter
    again = distill(encoder, TRAIN, VALIDATION, recipe, 3)
    other = distill(encoder, TRAIN, VALIDATION, recipe, 4)
    assert first.best_epoch > 0
    assert weights(first) == weights(again) != weights(other)
    assert [replace(e, seconds=0) for e in first.log] == [replace(e, seconds=0) for e in again.log]


def test_without_dropout_only_the_draws_are_random(encoder: InfluenceEncoder) -> None:
    everything = replace(QUICK, epochs=1, queries_per_step=12, candidates_per_step=40)
    losses = {
        dropout: {
            round(distill(encoder, TRAIN, VALIDATION, recipe, seed).log[1].loss or 0.0, 5)
            for seed in (0, 1, 2)
        }
        for dropout in ("own", "none")
        for recipe in [replace(everything, dropout=dropout)]
    }
    assert len(losses["none"]) == 1
    assert len(losses["own"]) == 3


def test_bfloat16_trains_repeatably_and_keeps_float32_weights(encoder: InfluenceEncoder) -> None:
    recipe = replace(QUICK, precision="bfloat16")
    first, again = (distill(encoder, TRAIN, VALIDATION, recipe, 0) for _ in range(2))
    assert first.log[first.best_epoch].validation > first.log[0].validation
    assert weights(first) == weights(again)
    assert all(value.dtype == torch.float32 for value in first.encoder.model.parameters())


def test_validation_changes_the_choice_of_the_epoch_only(encoder: InfluenceEncoder) -> None:
    upside_down = replace(VALIDATION, query_features=-VALIDATION.query_features)
    straight = distill(encoder, TRAIN, VALIDATION, QUICK, 0)
    turned = distill(encoder, TRAIN, upside_down, QUICK, 0)
    assert [e.loss for e in straight.log] == [e.loss for e in turned.log]
    for one, other in zip(straight.log, turned.log, strict=True):
        assert one.validation == pytest.approx(-other.validation, abs=1e-9)


def test_a_constant_teacher_leaves_the_encoder_as_it_is(encoder: InfluenceEncoder) -> None:
    train, flat = (replace(s, query_features=0 * s.query_features) for s in (TRAIN, VALIDATION))
    result = distill(encoder, train, flat, QUICK, 0)
    assert result.best_epoch == 0
    assert all(entry.validation == 0.0 for entry in result.log)
    assert all(np.isfinite(entry.loss) for entry in result.log if entry.loss is not None)


def test_fewer_samples_than_a_step_takes_still_train(encoder: InfluenceEncoder) -> None:
    few = TrainingSet(
        TRAIN.queries[:2],
        TRAIN.candidates[:5],
        TRAIN.query_features[:2],
        TRAIN.candidate_features[:5],
    )
    result = distill(encoder, few, few, QUICK, 0)
    assert result.log[-1].validation > result.log[0].validation


def test_divergence_is_an_error_that_names_the_learning_rate(encoder: InfluenceEncoder) -> None:
    with pytest.raises(SettingsError, match=r"(?s)diverged.*learning_rate 1e\+38"):
        distill(encoder, TRAIN, VALIDATION, replace(QUICK, learning_rate=1e38), 0)


def test_the_reference_recipe_is_the_published_one() -> None:
    published = Recipe(
        name="reference",
        epochs=8,
        learning_rate=5e-5,
        weight_decay=0.01,
        warmup=0.1,
        queries_per_step=8,
        candidates_per_step=16,
        alpha=0.5,
        temperature=0.05,
        hard_share=0.0,
        gradient_clip=1.0,
    )
    assert RECIPES["reference"] == published


def test_recipes_are_found_by_their_own_names() -> None:
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        name: name for name in RECIPES
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("warmup", 1.0),
        ("queries_per_step", 0),
        ("candidates_per_step", 1),
        ("alpha", 1.5),
        ("temperature", 0.0),
        ("hard_share", 1.0),
        ("gradient_clip", 0.0),
        ("dropout", "some"),
        ("precision", "float16"),
    ],
)
def test_impossible_recipes_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=key):
        replace(Recipe(), **{key: value})
