"""Grad-Sim and Rep-Sim against their definitions, computed one sample at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from influcoder_lib.evaluation.baselines.encoder import EncoderCosine
from influcoder_lib.evaluation.baselines.gradient import GradientCosine
from influcoder_lib.evaluation.baselines.representation import Representations
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from tests.tiny import ARCHITECTURES, tiny_target

TEXTS = [("what is red?", "the cat."), ("", "a dog sings"), ("why", "z"), ("one two", "four five")]
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in TEXTS]
FEATURES = np.random.default_rng(0).normal(size=(4, 6))
FEATURES = (FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)).astype(np.float16)


def features(samples):
    return FEATURES[[SAMPLES.index(each) for each in samples]]


def test_grad_sim_is_the_cosine_of_gradients():
    scores = GradientCosine(features).scores(SAMPLES[:1], SAMPLES[1:])
    expected = [[float(FEATURES[0].astype(float) @ each) for each in FEATURES[1:].astype(float)]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert GradientCosine(features).scores([], SAMPLES).shape == (0, 4)


def test_grad_sim_with_a_mean_is_the_cosine_of_what_is_left_of_both():
    mean = FEATURES[1:].astype(np.float32).mean(axis=0)
    scores = GradientCosine(features, mean).scores(SAMPLES[:1], SAMPLES[1:])
    left, right = FEATURES[0] - mean, FEATURES[1:] - mean
    expected = right @ left / np.linalg.norm(left) / np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(scores[0], expected, atol=1e-6)


def test_a_sample_without_a_gradient_is_an_error_that_says_so():
    with pytest.raises(DataError, match="1 of 3 samples have no gradient"):
        GradientCosine(lambda samples: FEATURES[: len(samples) - 1]).scores(SAMPLES[:3], SAMPLES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rep_sim_is_the_cosine_of_last_states_at_last_tokens(architecture: str, tmp_path: Path):
    target = load_target(tiny_target(tmp_path / architecture, architecture), "float32")
    own = Representations(target, window=24, tokens_per_batch=64)
    states = []
    for span in own.spans.encode(SAMPLES):
        with torch.no_grad():
            found = target.model(torch.tensor([span.ids]), output_hidden_states=True)
        states.append(found.hidden_states[-1][0, -1].numpy())
    np.testing.assert_allclose(own.encode(SAMPLES), states, atol=1e-5)
    unit = np.array(states) / np.linalg.norm(states, axis=1, keepdims=True)
    scores = EncoderCosine(own, "Rep-Sim").scores(SAMPLES[:2], SAMPLES)
    np.testing.assert_allclose(scores, unit[:2] @ unit.T, atol=1e-5)
