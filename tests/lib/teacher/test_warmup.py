"""The warm-up against plain training through PEFT, and what its checkpoints hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel, load_target
from influcoder_lib.teacher import warmup
from influcoder_lib.teacher.adapters import fresh_adapter, trained_adapter
from influcoder_lib.teacher.tokens import Span, SpanEncoder
from influcoder_lib.teacher.warmup import Checkpoint, WarmupSettings, checkpoints, warm_up
from tests.tiny import tiny_target

WINDOW = 48
SETTINGS = WarmupSettings(rank=2, seed=3, epochs=2, samples_per_step=2, learning_rate=0.01)
TEXTS = [
    ("what is red?", "the cat."),
    ("", "a dog sings, and a bird: 12 times over!"),
    ("tell me more about the bird that sleeps", "no"),
    ("why", "z"),
    ("one two three", "four five six seven"),
]
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in TEXTS]


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_target(tmp_path_factory.mktemp("target"), "llama")


def warmed(target_folder: Path, out: Path, settings=SETTINGS, budget: int = 96, say=print):
    target = load_target(target_folder, "float32")
    return warm_up(target, SAMPLES, WINDOW, budget, settings, out, say)


@pytest.fixture(scope="module")
def found(target_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    return warmed(target_folder, tmp_path_factory.mktemp("runs") / "warm-up")


def spans_of(target: TargetModel) -> list[Span]:
    return SpanEncoder(target.tokenizer, WINDOW).encode(SAMPLES)


def loss(model, span: Span) -> torch.Tensor:
    ids = torch.tensor([span.ids])
    logits = model(input_ids=ids).logits[0, span.loss_start - 1 : -1]
    return functional.cross_entropy(logits, ids[0, span.loss_start :])


def trained_by_hand(target_folder: Path):
    """PEFT's parameters and Adam's moments by our factor names after all epochs, and the rates."""
    target = load_target(target_folder, "float32")
    layers = fresh_adapter(target.model, SETTINGS.rank, SETTINGS.seed)
    names = [layer.name for layer in layers]
    model = get_peft_model(
        target.model, LoraConfig(r=SETTINGS.rank, lora_alpha=SETTINGS.rank, target_modules=names)
    )
    own = dict(model.named_parameters())
    factors = {
        f"{name}.{factor}": own[f"base_model.model.{name}.lora_{factor}.default.weight"]
        for name in names
        for factor in "AB"
    }
    for layer in layers:
        factors[f"{layer.name}.A"].data = layer.a.clone()
    optimizer = torch.optim.Adam(factors.values(), lr=1.0)
    order, spans, rates = np.random.default_rng(SETTINGS.seed), spans_of(target), []
    for _ in range(SETTINGS.epochs):
        rows = order.permutation(len(spans))
        for part in (rows[:2], rows[2:4], rows[4:]):
            # Of six steps a thirtieth rises, which is none.
            rate = SETTINGS.learning_rate * (6 - len(rates)) / 6
            rates.append(rate)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            torch.stack([loss(model, spans[row]) for row in part]).mean().backward()
            optimizer.step()
    return factors, optimizer, rates


def test_the_warm_up_is_adam_on_the_mean_loss_of_responses(target_folder, found):
    factors, optimizer, rates = trained_by_hand(target_folder)
    assert [each.steps for each in found] == [3, 6]
    assert [each.learning_rate for each in found] == pytest.approx(
        [np.mean(rates[:3]), np.mean(rates[3:])]
    )
    layers = trained_adapter(load_target(target_folder, "float32").model, found[-1].folder)
    assert {f"{layer.name}.{factor}" for layer in layers for factor in "AB"} == set(factors)
    moments = found[-1].moments()
    for layer in layers:
        assert layer.scale == 1.0
        for name, value in ((f"{layer.name}.A", layer.a), (f"{layer.name}.B", layer.b)):
            factor = factors[name]
            torch.testing.assert_close(value, factor.data, rtol=1e-3, atol=2e-4)
            state = optimizer.state[factor]
            for kind, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
                error = (moments[f"{kind}.{name}"] - state[key]).norm() / state[key].norm()
                assert error < 0.02, (kind, name)


def test_a_warm_up_of_a_single_step_trains(target_folder, tmp_path):
    once = replace(SETTINGS, epochs=1, samples_per_step=len(SAMPLES))
    [only] = warmed(target_folder, tmp_path / "once", once)
    assert (only.steps, only.learning_rate) == (1, once.learning_rate)
    layers = trained_adapter(load_target(target_folder, "float32").model, only.folder)
    assert all(layer.b is not None and layer.b.abs().max() > 0 for layer in layers)


def test_the_loss_falls_from_checkpoint_to_checkpoint(target_folder, found):
    losses = []
    for folder in (None, *(each.folder for each in found)):
        target = load_target(target_folder, "float32")
        if folder:
            trained_adapter(target.model, folder)
        with torch.no_grad():
            losses.append(float(np.mean([loss(target.model, s) for s in spans_of(target)])))
    assert losses[0] > losses[1] > losses[2]


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_leaves_nothing_behind(
    target_folder, found, tmp_path, monkeypatch
):
    plain, failed = warmup.backward, []

    def short_of_memory(target, spans):
        plain(target, spans)
        if len(spans) > 1:
            failed.append(len(spans))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(warmup, "backward", short_of_memory)
    again = warmed(target_folder, tmp_path / "again")
    assert failed
    for one, other in zip(found, again, strict=True):
        for name, moment in one.moments().items():
            torch.testing.assert_close(other.moments()[name], moment, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_warm_up_whatever_fits_a_batch(target_folder, found, tmp_path):
    again = warmed(target_folder, tmp_path / "again")
    assert [each.fingerprint() for each in again] == [each.fingerprint() for each in found]
    narrow = warmed(target_folder, tmp_path / "narrow", budget=WINDOW)
    for name, value in narrow[-1].moments().items():
        torch.testing.assert_close(value, found[-1].moments()[name], rtol=1e-2, atol=1e-4)
    other = warmed(target_folder, tmp_path / "other", replace(SETTINGS, seed=4))
    assert other[-1].fingerprint() != found[-1].fingerprint()


def test_checkpoints_are_read_in_the_order_of_their_epochs(found, tmp_path):
    assert checkpoints(found[0].folder.parent) == found
    assert checkpoints(tmp_path) == []


def test_a_warm_up_that_ends_early_leaves_nothing_and_can_be_repeated(target_folder, tmp_path):
    def stop(line: str) -> None:
        if "epoch 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warmed(target_folder, tmp_path / "out", say=stop)
    assert not (tmp_path / "out").exists()
    assert len(warmed(target_folder, tmp_path / "out")) == SETTINGS.epochs


def test_a_sample_without_a_loss_is_left_out_and_counted(target_folder, found, tmp_path):
    target = load_target(target_folder, "float32")
    said = []
    samples = [*SAMPLES, Sample("e" * 32, "a prompt", "")]
    same = warm_up(target, samples, WINDOW, 96, SETTINGS, tmp_path / "out", said.append)
    assert [each.fingerprint() for each in same] == [each.fingerprint() for each in found]
    assert said[0] == "warm-up: 1 responses without a token are left out"


@pytest.mark.parametrize("samples", [[], [Sample("e" * 32, "a prompt", "")]], ids=len)
def test_a_warm_up_on_nothing_is_an_error(target_folder, tmp_path, samples):
    target = load_target(target_folder, "float32")
    with pytest.raises(DataError, match="nothing to warm up on"):
        warm_up(target, samples, WINDOW, 96, SETTINGS, tmp_path / "out", print)


def test_a_layer_that_no_sample_goes_through_has_moments_of_zero(target_folder, found, tmp_path):
    target = load_target(target_folder, "float32")
    target.model.model.layers[1].mlp.idle = torch.nn.Linear(32, 32).requires_grad_(False)
    last = warm_up(target, SAMPLES, WINDOW, 96, SETTINGS, tmp_path / "warm-up", print)[-1].moments()
    idle = {name: value for name, value in last.items() if ".idle." in name}
    assert len(idle) == 4
    assert all(not value.any() for value in idle.values())
    assert all(torch.equal(last[name], value) for name, value in found[-1].moments().items())
