"""The packaged real models: verified, loaded, and sane. Skipped where they are not installed."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from influcoder_lib import models, target_model
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.precision import Precision
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.teacher.adapters import fresh_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch

pytestmark = pytest.mark.models

_TEXTS = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Name a primary color.", "Red."),
    ("", "It rained all night, and the river rose to the edge of the old stone bridge."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it."),
]
SAMPLES = [Sample(sample_id(prompt, response), prompt, response) for prompt, response in _TEXTS]


def _installed(name: str) -> None:
    try:
        importlib.metadata.distribution(models.PACKAGED[name].distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{models.PACKAGED[name].distribution} is not installed (group demo)")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _installed("smollm2-135m-instruct")
    files = models.locate("smollm2-135m-instruct", Path())
    return target_model.unpack(files, tmp_path_factory.mktemp("models"))


def _features(decoder: Path, dtype: Precision) -> np.ndarray:
    target = target_model.load_target(decoder, dtype)
    layers = fresh_adapter(target.model, 16, 0)
    assert len(layers) == 210
    engine = GradientFeatures(target, layers, CountSketch(8192, 0), 512, 1024)
    rows = np.empty((len(SAMPLES), 8192), np.float32)
    for batch in engine.features(SAMPLES):
        rows[batch.indices] = batch.rows
    return rows


def test_the_unpacked_decoder_knows_the_capital_of_france(decoder: Path) -> None:
    target = target_model.load_target(decoder, "float32")
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = target.tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        said = target.model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in target.tokenizer.decode(said[0, ids["input_ids"].shape[1] :])


def test_bfloat16_features_follow_float32_ones(decoder: Path) -> None:
    full, half = _features(decoder, "float32"), _features(decoder, "bfloat16")
    assert (full * half).sum(axis=1).min() >= 0.998


def test_the_packaged_encoder_tells_related_from_unrelated() -> None:
    _installed("all-minilm-l6-v2")
    folder = models.check_encoder(models.locate("all-minilm-l6-v2", Path()))
    encoder = InfluenceEncoder.load(folder, 128)
    texts = ["a cat sleeps", "a kitten naps", "interest rates rise"]
    cat, kitten, rates = encoder.encode([Sample(str(i), "", t) for i, t in enumerate(texts)])
    assert cat @ kitten > 0.5 > cat @ rates
