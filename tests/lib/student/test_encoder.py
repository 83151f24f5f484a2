"""The influence encoder: order, batching, truncation, save and load, fingerprints, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from influcoder_lib.errors import ModelError, SettingsError, StoreError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.reading import text_of
from tests.folders import contents
from tests.tiny import tiny_encoder

SAMPLES = [
    Sample(str(i), "the cat " * (i * 5 % 7), "red dog runs . " * (1 + i * 3 % 5)) for i in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> InfluenceEncoder:
    return InfluenceEncoder.load(folder, 48, "float32")


def edited(folder: Path, copy: Path, file: str, **keys: object) -> Path:
    """A copy of an encoder's folder with some keys of one JSON file set."""
    shutil.copytree(folder, copy)
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | keys))
    return copy


def test_vectors_have_length_one_and_the_encoder_s_dimension(encoder: InfluenceEncoder) -> None:
    vectors = encoder.encode(SAMPLES)
    assert vectors.shape == (12, encoder.dimension) == (12, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_batches_that_do_not_fit_into_memory_are_split_and_give_the_same_vectors(
    encoder: InfluenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = encoder.copy()
    plain, sizes = tight.model.forward, []

    def short_of_memory(inputs: dict[str, Any], **options: Any) -> Any:
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return plain(inputs, **options)

    monkeypatch.setattr(tight.model, "forward", short_of_memory)
    np.testing.assert_allclose(tight.encode(SAMPLES), encoder.encode(SAMPLES), atol=1e-6)
    assert max(sizes) > 60
    sizes.clear()
    tight.encode(SAMPLES)
    assert max(sizes) <= 60


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_neither_order_nor_batch_size_matters(encoder: InfluenceEncoder, batch_tokens: int) -> None:
    alone = np.concatenate([encoder.encode([sample]) for sample in SAMPLES])
    order = np.random.default_rng(0).permutation(len(SAMPLES))
    small = encoder.copy()
    small.budget.tokens = batch_tokens
    mixed = small.encode([SAMPLES[i] for i in order])
    np.testing.assert_allclose(mixed, alone[order], atol=1e-5)


def test_bfloat16_stays_close_to_float32_and_has_another_fingerprint(
    encoder: InfluenceEncoder, folder: Path
) -> None:
    narrow = InfluenceEncoder.load(folder, 48, "bfloat16")
    assert narrow.copy().fingerprint == narrow.fingerprint != encoder.fingerprint
    vectors = narrow.encode(SAMPLES)
    assert vectors.dtype == np.float32
    assert not np.array_equal(vectors, encoder.encode(SAMPLES))
    np.testing.assert_allclose(vectors, encoder.encode(SAMPLES), atol=0.02)


def test_different_samples_have_different_vectors(encoder: InfluenceEncoder) -> None:
    cosines = encoder.encode(SAMPLES) @ encoder.encode(SAMPLES).T
    assert (cosines[~np.eye(12, dtype=bool)] < 1 - 1e-5).all()


def test_no_samples_give_an_empty_matrix(encoder: InfluenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.read([])[1].shape == (0,)


def test_forward_agrees_with_encode_and_has_gradients(folder: Path) -> None:
    encoder = InfluenceEncoder.load(folder, 48, "float32")
    encoder.budget.tokens = 60
    vectors = encoder.forward(SAMPLES)
    np.testing.assert_allclose(vectors.detach().numpy(), encoder.encode(SAMPLES), atol=1e-5)
    vectors[0, 0].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.model.parameters())


def test_encode_switches_dropout_off(folder: Path) -> None:
    encoder = InfluenceEncoder.load(folder, 48)
    encoder.model.train()
    assert not torch.equal(encoder.forward(SAMPLES), encoder.forward(SAMPLES))
    np.testing.assert_array_equal(encoder.encode(SAMPLES), encoder.encode(SAMPLES))


def test_truncation_cuts_the_tail_and_is_reported(folder: Path) -> None:
    encoder = InfluenceEncoder.load(folder, 8)  # [CLS], six words, [SEP]
    fits, over = Sample("1", "a b c", "d e f"), Sample("2", "a b c", "d e f g")
    assert encoder.read([over, fits])[1].tolist() == [True, False]
    np.testing.assert_allclose(encoder.encode([over]), encoder.encode([fits]), atol=1e-6)


def test_a_saved_folder_is_a_plain_sentence_transformer(
    encoder: InfluenceEncoder, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    long = Sample("long", "why " * 40, "runs " * 40)
    samples = [*SAMPLES, long]
    texts = [sample.prompt + "\n" + sample.response for sample in samples]
    np.testing.assert_allclose(plain.encode(texts), encoder.encode(samples), atol=1e-5)
    assert texts == [text_of(sample) for sample in samples]
    suffixes = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_saving_writes_equal_bytes_whatever_happened_before(folder: Path, tmp_path: Path) -> None:
    fresh, used = InfluenceEncoder.load(folder, 48), InfluenceEncoder.load(folder, 48)
    used.encode(SAMPLES)
    fresh.save(tmp_path / "one")
    used.save(tmp_path / "two")
    InfluenceEncoder.load(tmp_path / "one", 48).save(tmp_path / "three")
    for other in ("two", "three"):
        assert contents(tmp_path / "one") == contents(tmp_path / other)
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "one").glob("*.json"))


def test_saving_refuses_a_folder_in_use(encoder: InfluenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        encoder.save(tmp_path)


def test_fingerprint_outlives_use_save_load_and_copy(folder: Path, tmp_path: Path) -> None:
    encoder = InfluenceEncoder.load(folder, 48)
    before = encoder.fingerprint
    encoder.encode(SAMPLES)
    encoder.save(tmp_path / "elsewhere")
    assert encoder.fingerprint == before
    assert InfluenceEncoder.load(tmp_path / "elsewhere", 48).fingerprint == before
    assert encoder.copy().fingerprint == before


def test_fingerprint_follows_weights_window_tokenizer_and_modules(
    folder: Path, tmp_path: Path
) -> None:
    encoder = InfluenceEncoder.load(folder, 48)
    weights = shutil.copytree(folder, tmp_path / "weights") / "model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    words = shutil.copytree(folder, tmp_path / "words") / "tokenizer.json"
    words.write_text(words.read_text().replace('"cat"', '"cow"'))
    cls = edited(folder, tmp_path / "cls", "1_Pooling/config.json", pooling_mode="cls")
    changed = [
        InfluenceEncoder.load(f, 48).fingerprint for f in (weights.parent, words.parent, cls)
    ]
    narrow = InfluenceEncoder.load(folder, 47).fingerprint
    assert len({encoder.fingerprint, narrow, *changed}) == 5


def test_a_copy_has_weights_of_its_own(encoder: InfluenceEncoder) -> None:
    before = encoder.fingerprint
    copied = encoder.copy()
    with torch.no_grad():
        next(copied.model.parameters()).add_(1)
    assert encoder.fingerprint == before != copied.fingerprint


def test_the_model_s_own_prefix_is_kept(folder: Path, tmp_path: Path) -> None:
    prefixed = edited(
        folder,
        tmp_path / "prefixed",
        "config_sentence_transformers.json",
        prompts={"document": "is the "},
        default_prompt_name="document",
    )
    bare, with_prefix = InfluenceEncoder.load(folder, 9), InfluenceEncoder.load(prefixed, 9)
    sample, spelled = Sample("1", "a b", "c d e"), Sample("2", "is the a b", "c d e")
    np.testing.assert_allclose(with_prefix.encode([sample]), bare.encode([spelled]), atol=1e-6)
    assert with_prefix.read([Sample("3", "a b", "c d e f")])[1].tolist() == [True]


def test_a_folder_without_normalize_still_gives_unit_vectors(folder: Path, tmp_path: Path) -> None:
    loose = shutil.copytree(folder, tmp_path / "loose")
    modules = json.loads((loose / "modules.json").read_text())
    (loose / "modules.json").write_text(json.dumps(modules[:2]))
    InfluenceEncoder.load(loose, 48).save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(np.linalg.norm(plain.encode(["the cat"]), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("window", [2, 65])
def test_an_impossible_window_is_refused(folder: Path, window: int) -> None:
    with pytest.raises(SettingsError, match=r"(?s)cannot read.*3 to 64 tokens"):
        InfluenceEncoder.load(folder, window)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as a pickle"):
        InfluenceEncoder.load(pickled, 48)


def test_shortened_vectors_are_refused(folder: Path, tmp_path: Path) -> None:
    settings = "config_sentence_transformers.json"
    with pytest.raises(ModelError, match="truncate_dim"):
        InfluenceEncoder.load(edited(folder, tmp_path / "short", settings, truncate_dim=8), 48)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "."])
def test_an_incomplete_folder_is_refused_by_name(
    folder: Path, tmp_path: Path, missing: str
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(broken) if missing == "." else (broken / missing).unlink()
    with pytest.raises(ModelError, match="broken"):
        InfluenceEncoder.load(broken, 48)
