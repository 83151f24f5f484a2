"""LESS against torch's own Adam and against exact cosines of full gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError, ModelError
from influcoder_lib.evaluation.baselines import less
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import trained_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from influcoder_lib.teacher.warmup import Checkpoint, WarmupSettings, warm_up
from tests.lib.evaluation.baselines.engine_rows import rows_of
from tests.tiny import tiny_target

TEXTS = [("what is red?", "the cat."), ("", "a dog sings"), ("why", "z"), ("one two", "four five")]
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in TEXTS]
DIMENSIONS = 1 << 17


class Known(Checkpoint):
    """A checkpoint whose moments are given."""

    def moments(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(5)
        first = torch.randn(4, 3, generator=generator)
        return {"first.x": first, "second.x": torch.rand(4, 3, generator=generator) + first**2}


class Kept:
    """A sketch that keeps everything."""

    dimensions = 12

    def empty(self, samples, device):
        return torch.zeros(self.dimensions, samples)

    def add(self, accumulator, name, gradients):
        accumulator += gradients.flatten(1).T

    def features(self, rows):
        return rows


def steps(checkpoint: Checkpoint, gradients: Tensor) -> Tensor:
    sketch = less.AdamSketch(Kept(), checkpoint)
    accumulator = sketch.empty(len(gradients), torch.device("cpu"))
    sketch.add(accumulator, "x", gradients)
    return sketch.features(accumulator.T).reshape(gradients.shape)


def test_a_candidates_feature_is_the_step_that_torchs_adam_takes_on_it_alone():
    checkpoint = Known(Path(), 1e-3, 7, (0.9, 0.99))
    gradients = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(6))
    for gradient, found in zip(gradients, steps(checkpoint, gradients), strict=True):
        weight = torch.zeros(4, 3, requires_grad=True)
        adam = torch.optim.Adam([weight], lr=1.0, betas=(0.9, 0.99))
        moments = checkpoint.moments()
        adam.state[weight] = {
            "step": torch.tensor(7.0),
            "exp_avg": moments["first.x"],
            "exp_avg_sq": moments["second.x"],
        }
        weight.grad = gradient
        adam.step()
        torch.testing.assert_close(found, -weight.detach(), rtol=1e-4, atol=1e-5)


def test_without_memory_the_step_is_the_gradients_sign():
    gradients = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(6))
    found = steps(Known(Path(), 1e-3, 7, (0.0, 0.0)), gradients)
    torch.testing.assert_close(found, gradients / torch.sqrt(gradients**2 + less.EPSILON))
    assert torch.equal(found.sign(), gradients.sign())


def test_with_memory_alone_all_candidates_are_the_same():
    gradients = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(6))
    found = steps(Known(Path(), 1e-3, 7, (1 - 1e-7, 1 - 1e-7)), gradients)
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-3, atol=1e-4)


def test_a_layer_whose_gradients_come_in_parts_is_an_error():
    sketch = less.AdamSketch(Kept(), Known(Path(), 1e-3, 7, (0.9, 0.99)))
    for _ in range(2):
        accumulator = sketch.empty(1, torch.device("cpu"))
        sketch.add(accumulator, "x", torch.ones(1, 4, 3))
    with pytest.raises(ModelError, match="layer of x is used more than once"):
        sketch.add(accumulator, "x", torch.ones(1, 4, 3))


def units(seed: int):
    rows = np.random.default_rng(seed).normal(size=(len(SAMPLES), 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return rows, lambda samples: rows[[SAMPLES.index(each) for each in samples]]


def test_less_sums_cosines_by_the_learning_rates():
    (a, of_a), (b, of_b), (c, of_c), (d, of_d) = (units(seed) for seed in range(4))
    found = less.Less([less.Stage(0.3, of_a, of_b), less.Stage(0.1, of_c, of_d)])
    a, b, c, d = (each.astype(np.float64) for each in (a, b, c, d))
    expected = 0.3 * a[:2] @ b.T + 0.1 * c[:2] @ d.T
    scores = found.scores(SAMPLES[:2], SAMPLES)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.dtype == np.float32
    part = found.scores(SAMPLES[1:2], SAMPLES[2:])
    np.testing.assert_allclose(part, scores[1:, 2:], atol=1e-7)
    assert found.scores([], SAMPLES).shape == (0, 4)


def test_a_sample_without_a_feature_is_an_error():
    rows, _ = units(0)
    short = less.Stage(1.0, lambda s: rows[: len(s)], lambda s: rows[: len(s) - 1])
    with pytest.raises(DataError, match="1 of 4 samples have no gradient"):
        less.Less([short]).scores(SAMPLES[:1], SAMPLES)


def exact(engine: GradientFeatures, checkpoint: Checkpoint) -> Tensor:
    """Cosines (Q, N) of full gradients with full steps of Adam, a sample at a time."""
    moments, (one, two), t = checkpoint.moments(), checkpoint.betas, checkpoint.steps + 1
    plain, adam = [], []
    for span in engine.spans.encode(SAMPLES):
        gradients = {name: each[0].double() for name, each in engine.gradients([span]).items()}
        plain.append(torch.cat([each.ravel() for each in gradients.values()]))
        own = []
        for name, g in gradients.items():
            m = (one * moments[f"first.{name}"] + (1 - one) * g) / (1 - one**t)
            v = (two * moments[f"second.{name}"] + (1 - two) * g**2) / (1 - two**t)
            own.append((m / (v + 1e-8).sqrt()).ravel())
        adam.append(torch.cat(own))
    left, right = (functional.normalize(torch.stack(each), dim=1) for each in (plain, adam))
    return left @ right.T


def test_less_along_a_warm_up_is_the_sum_of_exact_cosines_up_to_the_sketch(tmp_path):
    folder = tiny_target(tmp_path / "target", "llama")
    settings = WarmupSettings(rank=2, epochs=2, samples_per_step=2, learning_rate=0.01)
    first = load_target(folder, "float32")
    found = warm_up(first, SAMPLES, 32, 64, settings, tmp_path / "warm-up", print)
    stages, expected = [], torch.zeros(len(SAMPLES), len(SAMPLES))
    for checkpoint in found:
        target = load_target(folder, "float32")
        layers = trained_adapter(target.model, checkpoint.folder)
        engine = GradientFeatures(target, layers, CountSketch(DIMENSIONS, 0), 32, 64)
        candidates = less.adam_features(engine, checkpoint)
        stages.append(less.Stage(checkpoint.learning_rate, rows_of(engine), rows_of(candidates)))
        expected = expected + checkpoint.learning_rate * exact(engine, checkpoint)
    scores = less.Less(stages).scores(SAMPLES, SAMPLES)
    bound = 5 / DIMENSIONS**0.5 * sum(each.learning_rate for each in found)
    assert bound < 0.2 * float(expected.std())
    np.testing.assert_allclose(scores, expected, atol=bound)
