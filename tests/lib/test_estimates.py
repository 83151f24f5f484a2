"""What a plan is said to cost is what its sizes give by hand."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from influcoder_lib import estimates, hardware
from influcoder_lib.estimates import Workload
from influcoder_lib.models import ModelFiles
from influcoder_lib.refresh import Step

TARGET, ENCODER = 1000, 200


def files(folder, parameters: int) -> ModelFiles:
    folder.mkdir()
    save_file({"weight": np.zeros((parameters // 10, 10))}, folder / "model.safetensors")
    return ModelFiles(folder.name, folder, None)


@pytest.fixture
def load(tmp_path) -> Workload:
    """Samples of 160 characters, so 50 tokens, of which the encoder reads 32."""
    return Workload(
        rows_per_shard=500,
        characters=160,
        target=files(tmp_path / "target", TARGET),
        encoder=files(tmp_path / "encoder", ENCODER),
        dtype="float32",
        window=64,
        encoder_window=32,
        candidates_per_shard=40,
        candidates=60,
        queries=10,
        shards=4,
        tokens_per_batch=1024,
        trained_on=7,
        static=False,
        epochs=3,
        samples_per_step=24,
        candidates_per_step=16,
        seeds=2,
    )


def test_seconds_are_work_over_four_tenths_of_the_rate(load, monkeypatch):
    monkeypatch.setattr(hardware, "matmul_rate", lambda precision: 10_000.0)
    plan = [
        ("corpus", "a"),
        ("corpus", "b"),
        ("target_adapter", None),
        ("gradient_projections", "a"),
        ("gradient_projections", "b"),
        ("distillation_set", None),
        ("influence_encoder", None),
        ("corpus_embeddings", "a"),
        ("corpus_embeddings", "b"),
    ]
    found = estimates.estimate([Step(asset, shard, "new", True) for asset, shard in plan], load)
    # Rate 10,000 x 0.4 = 4,000 a second: forward and backward of 4 x 1,000 x 50, forward of half
    # of 2 x 200 x 32.
    gradient, embedding = 50.0, 1.6
    steps = 3 * 2 * 0.6 * 60 / 16
    assert {each.asset: (each.artifacts, each.seconds) for each in found} == {
        "corpus": (2, pytest.approx(2 * 0.2)),
        "target_adapter": (1, pytest.approx(7 * gradient)),
        "gradient_projections": (2, pytest.approx(2 * 40 * gradient)),
        "distillation_set": (1, pytest.approx(10 * gradient)),
        "influence_encoder": (1, pytest.approx(steps * 24 * 3 * embedding + 70 * embedding)),
        "corpus_embeddings": (2, pytest.approx(2 * 500 * embedding)),
    }


def test_a_static_student_costs_the_same_whatever_the_encoder(load, monkeypatch):
    monkeypatch.setattr(hardware, "matmul_rate", lambda precision: 10_000.0)
    plan = [Step("corpus_embeddings", "a", "new", True)]
    (found,) = estimates.estimate(plan, replace(load, static=True))
    assert found.seconds == pytest.approx(500 * 3e-4)


def test_gradients_need_memory_for_the_model_and_a_batch(load, monkeypatch):
    monkeypatch.setattr(hardware, "matmul_rate", lambda precision: 10_000.0)
    found = estimates.estimate(
        [Step(asset, None, "new", True) for asset in ("corpus", "distillation_set")], load
    )
    weights, activations = TARGET * 4, 1024 * TARGET * 8e-3
    assert [each.gib for each in found] == [
        pytest.approx(1.2),
        pytest.approx(1.2 + (weights + activations) / 2**30, abs=1e-9),
    ]


def test_a_fit_in_closed_form_needs_memory_for_the_square_of_its_candidates(load, monkeypatch):
    monkeypatch.setattr(hardware, "matmul_rate", lambda precision: 10_000.0)
    plan = [Step("influence_encoder", None, "new", True)]
    few, many, descended = (
        estimates.estimate(plan, replace(load, epochs=epochs, candidates=most, shards=10_000))[0]
        for epochs, most in ((0, 1000), (0, 20_000), (8, 20_000))
    )
    assert many.gib - few.gib == pytest.approx(64 * (20_000**2 - 1000**2) / 2**30)
    assert descended.gib < few.gib
