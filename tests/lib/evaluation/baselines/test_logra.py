"""LoGra against dense linear algebra on the full gradients of the weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from influcoder_lib.evaluation.baselines.logra import Logra, Projection, projected_gradients
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel, load_target
from influcoder_lib.teacher.adapters import AdaptedLayer, fresh_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from tests.lib.evaluation.baselines.engine_rows import rows_of
from tests.tiny import ARCHITECTURES, tiny_target

TEXTS = [("what is red?", "the cat."), ("", "a dog sings"), ("why", "z"), ("one two", "four five")]
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in TEXTS]
WIDTH = 3


def weight_gradients(target: TargetModel, layers: list[AdaptedLayer], engine: GradientFeatures):
    """Gradients (n, d_out, d_in) of the layers' own weights, by autograd, a sample at a time."""
    found: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}
    for span in engine.spans.encode(SAMPLES):
        for layer in layers:
            layer.module.weight.requires_grad_(True).grad = None
        ids = torch.tensor([span.ids])
        logits = target.model(input_ids=ids).logits[0, span.loss_start - 1 : -1]
        functional.cross_entropy(logits, ids[0, span.loss_start :]).backward()
        for layer in layers:
            gradient = layer.module.weight.grad.clone()
            is_conv = type(layer.module).__name__ == "Conv1D"
            found[layer.name].append(gradient.T if is_conv else gradient)
            layer.module.weight.requires_grad_(False)
    return {name: torch.stack(each) for name, each in found.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_projected_gradient_is_the_weights_gradient_between_two_matrices(
    architecture: str, tmp_path: Path
):
    target = load_target(tiny_target(tmp_path / architecture, architecture), "float32")
    engine = projected_gradients(target, 2, 7, 32, 64)
    rows = rows_of(engine)(SAMPLES)
    full = weight_gradients(target, engine.layers, engine)
    assert rows.shape == (len(SAMPLES), 4 * len(full))
    for place, layer in enumerate(engine.layers):
        outer = engine.sketch.outer[f"{layer.name}.B"]
        expected = (outer @ full[layer.name] @ layer.a.T).flatten(1)
        found = rows[:, 4 * place : 4 * place + 4]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_with_projections_that_change_nothing_it_is_the_damped_influence_of_the_weights(tmp_path):
    target = load_target(tiny_target(tmp_path / "target", "llama"), "float32")
    square = [
        AdaptedLayer(each.name, each.module, torch.eye(32), None, 1.0)
        for each in fresh_adapter(target.model, 1, 0)
        if each.name.endswith(("q_proj", "o_proj"))
    ]
    projection = Projection({each.name: torch.eye(32) for each in square}, 32 * 32)
    engine = GradientFeatures(target, square, projection, 32, 64)
    found = Logra(rows_of(engine), 32 * 32).scores(SAMPLES[:2], SAMPLES[1:])
    expected = 0.0
    for gradient in weight_gradients(target, square, engine).values():
        g = gradient.flatten(1).double().numpy()
        fisher = np.mean([np.outer(each, each) for each in g[1:]], axis=0)
        damping = 0.1 * np.linalg.eigvalsh(fisher).mean()
        expected += g[:2] @ np.linalg.inv(fisher + damping * np.eye(len(fisher))) @ g[1:].T
    assert len(square) == 4
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def given(seed: int = 0, scale: float = 1.0):
    rows = np.random.default_rng(seed).normal(size=(len(SAMPLES), 2 * WIDTH))
    rows[:, WIDTH:] *= scale
    return lambda samples: rows[[SAMPLES.index(each) for each in samples]].astype(np.float32)


def test_every_layer_is_damped_by_a_tenth_of_its_mean_eigenvalue():
    rows = given()(SAMPLES).astype(np.float64)
    expected = 0.0
    for g in (rows[:, :WIDTH], rows[:, WIDTH:]):
        fisher = g.T @ g / len(g)
        damped = fisher + 0.1 * np.linalg.eigvalsh(fisher).mean() * np.eye(WIDTH)
        expected += g[:2] @ np.linalg.inv(damped) @ g.T
    found = Logra(given(), WIDTH).scores(SAMPLES[:2], SAMPLES)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_scale_of_a_layers_projection_makes_no_difference():
    plain = Logra(given(), WIDTH).scores(SAMPLES[:2], SAMPLES)
    scaled = Logra(given(scale=50.0), WIDTH).scores(SAMPLES[:2], SAMPLES)
    np.testing.assert_allclose(plain, scaled, rtol=1e-4)
    assert plain.dtype == np.float32


def test_the_order_of_candidates_makes_no_difference_and_their_lengths_do():
    whole = Logra(given(), WIDTH).scores(SAMPLES[:2], SAMPLES)
    turned = Logra(given(), WIDTH).scores(SAMPLES[:2], SAMPLES[::-1])
    np.testing.assert_allclose(whole, turned[:, ::-1], rtol=1e-5)
    half = given()(SAMPLES)
    half[0] *= 0.5
    moved = Logra(lambda s: half[[SAMPLES.index(each) for each in s]], WIDTH)
    assert abs(moved.scores(SAMPLES[1:2], SAMPLES)[0, 0]) != pytest.approx(abs(whole[1, 0]))


def test_a_layer_without_any_gradient_adds_nothing():
    alone = Logra(lambda s: given()(s)[:, :WIDTH], WIDTH).scores(SAMPLES[:2], SAMPLES)
    beside = Logra(given(scale=0.0), WIDTH).scores(SAMPLES[:2], SAMPLES)
    np.testing.assert_allclose(beside, alone, rtol=1e-6)


def test_no_queries_and_no_candidates_are_no_scores():
    assert Logra(given(), WIDTH).scores([], SAMPLES).shape == (0, 4)
    assert Logra(given(), WIDTH).scores(SAMPLES, []).shape == (4, 0)


def test_a_gradient_that_is_not_finite_is_an_error():
    with pytest.raises(DataError, match="not finite"):
        Logra(given(scale=np.inf), WIDTH).scores(SAMPLES[:2], SAMPLES)
