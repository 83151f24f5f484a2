"""Batched gradients against one-sample autograd through PEFT, and what must not change them."""

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError
from influcoder_lib.precision import Precision
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import AdaptedLayer, fresh_adapter, trained_adapter
from influcoder_lib.teacher.gradients import FeatureBatch, GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from influcoder_lib.teacher.tokens import Span
from tests.tiny import ARCHITECTURES, tiny_target

RANK = 3
TEXTS = [
    ("what is red?", "the cat."),
    ("", "a dog sings, and a bird: 12 times over and over!"),
    ("tell me more about the blue bird that sleeps", "no"),
    ("why", "z"),
    ("one two three", "four five six seven"),
]
SAMPLES = [Sample(fingerprint.sample_id(p, r), p, r) for p, r in TEXTS]


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny decoder of an architecture, made once."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            folder = tmp_path_factory.mktemp("targets") / architecture
            made[architecture] = tiny_target(folder, architecture)
        return made[architecture]

    return get


def linear_names(folder: Path) -> list[str]:
    return [layer.name for layer in fresh_adapter(load_target(folder, "float32").model, 1, 0)]


def save_trained(folder: Path, out: Path, **settings: object) -> Path:
    """A PEFT adapter on every linear layer of the blocks with random factors, B included."""
    config = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": linear_names(folder)}
    base = load_target(folder, "float32").model
    wrapped = get_peft_model(base, LoraConfig(**config | settings))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    wrapped.save_pretrained(out, safe_serialization=True)
    return out


def open_engine(
    folder: Path, adapter: Path | None = None, dtype: Precision = "float32", budget: int = 256
) -> GradientFeatures:
    target = load_target(folder, dtype)
    layers: list[AdaptedLayer] = (
        trained_adapter(target.model, adapter) if adapter else fresh_adapter(target.model, RANK, 0)
    )
    return GradientFeatures(target, layers, CountSketch(4096, 0), 64, budget)


def through_peft(folder: Path, layers: list[AdaptedLayer], adapter: Path | None) -> PeftModel:
    """The same adapter as PEFT's own modules around an untouched model."""
    base = load_target(folder, "float32").model
    if adapter is not None:
        return PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
    names = [layer.name for layer in layers]
    config = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=names)
    wrapped = get_peft_model(base, config).eval()
    parameters = dict(wrapped.named_parameters())
    for layer in layers:
        parameters[f"base_model.model.{layer.name}.lora_A.default.weight"].data = layer.a.clone()
    return wrapped


def autograd(wrapped: PeftModel, span: Span) -> dict[str, Tensor]:
    """Gradients of one sample by our factor names: mean cross-entropy of its response tokens."""
    wrapped.zero_grad()
    ids = torch.tensor([span.ids])
    logits = wrapped(input_ids=ids).logits[0]
    before = slice(span.loss_start - 1, len(span.ids) - 1)
    functional.cross_entropy(logits[before], ids[0, span.loss_start :]).backward()
    return {
        name.removeprefix("base_model.model.")
        .replace(".lora_A.default.weight", ".A")
        .replace(".lora_B.default.weight", ".B"): parameter.grad.clone()
        for name, parameter in wrapped.named_parameters()
        if parameter.grad is not None
    }


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def rows_by_sample(batches: Iterator[FeatureBatch]) -> dict[int, np.ndarray]:
    rows = {}
    for batch in batches:
        assert not batch.unusable
        rows |= dict(zip(batch.indices, batch.rows, strict=True))
    return rows


@pytest.mark.parametrize("source", ["fresh", "trained"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_gradients_equal_one_sample_autograd_through_peft(
    target_folder, tmp_path, architecture, source
):
    folder = target_folder(architecture)
    adapter = save_trained(folder, tmp_path / "adapter") if source == "trained" else None
    engine = open_engine(folder, adapter)
    spans = engine.spans.encode(SAMPLES)
    batched = engine.gradients(spans)
    wrapped = through_peft(folder, engine.layers, adapter)
    for row, span in enumerate(spans):
        expected = autograd(wrapped, span)
        if source == "fresh":
            zero = {name: expected.pop(name) for name in list(expected) if name.endswith(".A")}
            assert len(zero) == len(expected)
            assert all(not gradient.any() for gradient in zero.values())
        assert batched.keys() == expected.keys()
        for name, gradient in expected.items():
            assert relative_error(batched[name][row], gradient) <= 1e-4, (name, row)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_neither_padding_nor_order_nor_batch_mates_change_a_gradient(target_folder, architecture):
    engine = open_engine(target_folder(architecture))
    spans = engine.spans.encode(SAMPLES)
    alone = [engine.gradients([span]) for span in spans]
    for order in ([4, 2, 0, 3, 1], [3, 1], [1, 0, 2, 3, 4]):
        together = engine.gradients([spans[i] for i in order])
        for (row, index), name in itertools.product(enumerate(order), together):
            expected = alone[index][name][0]
            assert relative_error(together[name][row], expected) <= 1e-5, (name, order)


def test_a_padding_token_that_the_model_has_no_row_for_does_not_matter(target_folder):
    engine = open_engine(target_folder("llama"))
    spans = engine.spans.encode(SAMPLES)
    expected = engine.gradients(spans)
    engine.target.tokenizer.add_special_tokens({"pad_token": "<|never seen|>"})
    assert engine.target.tokenizer.pad_token_id >= engine.target.model.config.vocab_size
    found = engine.gradients(spans)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_long_batch_mate_does_not_change_a_gradient(target_folder, architecture):
    """Batches of long rows run another attention kernel where the architecture has one."""
    engine = open_engine(target_folder(architecture))
    short = engine.spans.encode(SAMPLES[:1])[0]
    long = Span(list(np.random.default_rng(0).integers(6, 50, 300)), 290, 0, 0, 10)
    alone = engine.gradients([short])
    together = engine.gradients([long, short])
    for name, gradient in alone.items():
        assert relative_error(together[name][1], gradient[0]) <= 1e-5, name


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_long_rows_equal_autograd_too(target_folder, architecture):
    folder = target_folder(architecture)
    engine = open_engine(folder)
    span = Span(list(np.random.default_rng(0).integers(6, 50, 300)), 200, 0, 0, 100)
    batched = engine.gradients([span])
    expected = autograd(through_peft(folder, engine.layers, None), span)
    for name, gradient in batched.items():
        assert relative_error(gradient[0], expected[name]) <= 1e-4, name


@pytest.mark.parametrize("source", ["fresh", "trained"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_features_stay_close_to_float32(target_folder, tmp_path, architecture, source):
    folder = target_folder(architecture)
    adapter = save_trained(folder, tmp_path / "adapter") if source == "trained" else None
    exact = rows_by_sample(open_engine(folder, adapter).features(SAMPLES))
    rough = rows_by_sample(open_engine(folder, adapter, "bfloat16").features(SAMPLES))
    assert min(float(exact[i] @ rough[i]) for i in exact) >= 0.998


def test_features_are_unit_and_cover_every_sample_whatever_the_batches(target_folder):
    folder = target_folder("llama")
    rows = {
        budget: rows_by_sample(open_engine(folder, budget=budget).features(SAMPLES))
        for budget in (64, 1024)
    }
    for found in rows.values():
        assert sorted(found) == list(range(len(SAMPLES)))
        np.testing.assert_allclose([np.linalg.norm(v) for v in found.values()], 1.0, atol=1e-6)
    for index, row in rows[64].items():
        np.testing.assert_allclose(row, rows[1024][index], atol=1e-5)


def test_batches_say_what_was_cut_and_how_many_tokens_are_left(target_folder):
    engine = open_engine(target_folder("llama"), budget=64)
    long = Sample("f" * 32, "a cat " * 40, "a dog " * 40)
    samples = [*SAMPLES, long, Sample("e" * 32, "a prompt", "")]
    spans = engine.spans.encode(samples)
    left = sum(len(span.ids) for span in spans if span.usable)
    cut: dict[int, bool] = {}
    for batch in engine.features(samples):
        left -= batch.tokens
        assert batch.left == left
        cut |= zip(batch.indices, batch.truncated.tolist(), strict=True)
    assert left == 0
    assert cut == {i: spans[i].truncated for i in range(len(samples) - 1)}
    assert cut[len(SAMPLES)]


def test_features_are_the_sketch_of_the_whole_gradient(target_folder):
    engine = open_engine(target_folder("llama"))
    spans = engine.spans.encode(SAMPLES)
    accumulator = engine.sketch.empty(len(spans), torch.device("cpu"))
    for name, gradient in engine.gradients(spans).items():
        engine.sketch.add(accumulator, name, gradient)
    expected = functional.normalize(accumulator.T, dim=1).numpy()
    for index, row in rows_by_sample(engine.features(SAMPLES)).items():
        np.testing.assert_allclose(row, expected[index], atol=1e-5)


def test_an_empty_loss_span_is_unusable_and_says_why(target_folder):
    samples = [SAMPLES[0], Sample("e" * 32, "a prompt", ""), SAMPLES[1]]
    found = list(open_engine(target_folder("llama")).features(samples))
    unusable = {index: reason for batch in found for index, reason in batch.unusable.items()}
    assert unusable == {1: "the response has no token: its loss span is empty"}
    assert sorted(index for batch in found for index in batch.indices) == [0, 2]


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, "the gradient is zero"), (np.nan, "the gradient is not finite")]
)
def test_a_gradient_of_no_use_is_named_and_has_no_row(target_folder, value, reason):
    engine = open_engine(target_folder("llama"), budget=1024)
    engine.target.model.lm_head.weight.data.fill_(value)
    batches = list(engine.features(SAMPLES))
    assert [batch.rows.shape for batch in batches] == [(0, 4096)]
    assert batches[0].unusable == dict.fromkeys(range(len(SAMPLES)), reason)
    assert batches[0].indices == []


def test_one_sample_with_a_zero_gradient_leaves_the_others_alone(target_folder):
    """A row whose only token in the loss is its first has nothing that could predict it."""
    engine = open_engine(target_folder("llama"))
    good = engine.spans.encode(SAMPLES[:1])[0]
    batch = engine._batch([7, 8], [good, Span([9], 0, 0, 0, 1)])
    assert batch.unusable == {8: "the gradient is zero"}
    assert batch.indices == [7]
    alone = engine._batch([7], [good])
    np.testing.assert_allclose(batch.rows, alone.rows, atol=1e-6)


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(32, 32, 1), nn.Embedding(4, 32), nn.Bilinear(4, 4, 4)], ids=repr
)
def test_an_unsupported_layer_is_an_error_that_names_it(target_folder, layer):
    model = load_target(target_folder("llama"), "float32").model
    model.model.layers[1].mlp.odd = layer
    with pytest.raises(
        ModelError, match=rf"model\.layers\.1\.mlp\.odd is a {type(layer).__name__}"
    ):
        fresh_adapter(model, RANK, 0)


def test_a_layer_that_mixes_samples_is_an_error_and_leaves_no_hook(target_folder):
    engine = open_engine(target_folder("llama"))
    mlp = engine.target.model.model.layers[0].mlp

    class Flattened(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return mlp(hidden.reshape(-1, hidden.shape[-1])).reshape(hidden.shape)

    engine.target.model.model.layers[0].mlp = Flattened()
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.\w+ sees its input as"):
        list(engine.features(SAMPLES))
    assert hooks(engine.target.model) == 0
    assert hooks(mlp) == 0


def test_the_model_is_left_as_it_was(target_folder):
    engine = open_engine(target_folder("llama"))
    model = engine.target.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (rows_by_sample(engine.features(SAMPLES)) for _ in range(2))
    assert all(np.array_equal(first[i], second[i]) for i in first)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks(model) == 0
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_leave_no_tensor_behind(target_folder, dtype):
    engine = open_engine(target_folder("llama"), dtype=dtype, budget=64)

    def tensors_after_a_pass() -> int:
        rows_by_sample(engine.features(SAMPLES))
        gc.collect()
        return sum(isinstance(each, Tensor) for each in gc.get_objects())

    tensors_after_a_pass()
    assert tensors_after_a_pass() == tensors_after_a_pass()


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_the_fresh_adapter_is_a_matter_of_its_seed_alone(target_folder):
    folder = target_folder("llama")
    first, again, other = (
        fresh_adapter(load_target(folder, "float32").model, RANK, seed) for seed in (0, 0, 1)
    )
    assert all(torch.equal(x.a, y.a) for x, y in zip(first, again, strict=True))
    assert not any(torch.equal(x.a, y.a) for x, y in zip(first, other, strict=True))
    names = [layer.name for layer in first]
    assert len(names) == len(set(names)) == 2 * 7
    assert not any("lm_head" in name for name in names)
