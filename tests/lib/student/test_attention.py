"""Attention over texts end to end agrees with transformers' own, forward and backward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoModel, BertTokenizerFast, T5Config, T5EncoderModel

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student import attention
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.reading import text_of
from tests.tiny import VOCABULARY, tiny_encoder

SAMPLES = [Sample(str(i), "the cat " * (i % 5), "red dog . " * (1 + i % 3)) for i in range(9)]
SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


def stock(folder: Path) -> SentenceTransformer:
    """The encoder as sentence-transformers loads it: padded, with the plainest attention."""
    options = {"attn_implementation": "eager"}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=options)
    model.max_seq_length = 48
    return model


def vectors(model: SentenceTransformer) -> np.ndarray:
    return model.encode([text_of(sample) for sample in SAMPLES])


def encoder_of(folder: Path, base: AutoModel) -> Path:
    """An encoder of another architecture with the tiny one's words."""
    (folder / "base").mkdir()
    (folder / "base" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    BertTokenizerFast.from_pretrained(folder / "base").save_pretrained(folder / "base")
    base.save_pretrained(folder / "base")
    words = Transformer(str(folder / "base"))
    pooled = Pooling(words.get_embedding_dimension())
    model = SentenceTransformer(modules=[words, pooled, Normalize()], device="cpu")
    model.save(str(folder / "encoder"), create_model_card=False)
    return folder / "encoder"


def known(folder: Path, architecture: str) -> Path:
    """An encoder of an architecture that this attention is for."""
    config = AutoConfig.for_model(architecture, **SHAPE, pad_token_id=0)
    return encoder_of(folder, AutoModel.from_config(config))


@pytest.mark.parametrize("architecture", sorted(attention._ARCHITECTURES))
def test_vectors_of_every_architecture_are_those_of_padded_texts(
    tmp_path: Path, architecture: str
) -> None:
    folder = known(tmp_path, architecture)
    ours = InfluenceEncoder.load(folder, 48, "float32")
    assert ours.model[0].auto_model.config._attn_implementation == attention.NAME
    np.testing.assert_allclose(ours.encode(SAMPLES), vectors(stock(folder)), atol=1e-6)


@pytest.mark.parametrize("architecture", sorted(attention._ARCHITECTURES))
def test_the_widest_window_of_every_architecture_can_be_read(
    tmp_path: Path, architecture: str
) -> None:
    folder = known(tmp_path, architecture)
    # RoBERTa's first places are for padding.
    widest = 63 if "roberta" in architecture or architecture == "camembert" else 64
    with pytest.raises(SettingsError, match=f"3 to {widest} tokens"):
        InfluenceEncoder.load(folder, widest + 1)
    found, cut = InfluenceEncoder.load(folder, widest).read([Sample("", "the cat " * 99, "no")])
    assert np.isfinite(found).all()
    assert cut.all()


def test_other_architectures_keep_their_attention(tmp_path: Path) -> None:
    config = T5Config(
        vocab_size=len(VOCABULARY), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    folder = encoder_of(tmp_path, T5EncoderModel(config))
    ours = InfluenceEncoder.load(folder, 48, "float32")
    assert ours.model[0].auto_model.config._attn_implementation != attention.NAME
    np.testing.assert_allclose(ours.encode(SAMPLES), vectors(stock(folder)), atol=1e-6)


def test_long_texts_take_the_fused_kernel_and_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_LONGEST", 10)
    ours = InfluenceEncoder.load(folder, 48, "float32")
    np.testing.assert_allclose(ours.encode(SAMPLES), vectors(stock(folder)), atol=1e-6)


def test_a_padded_call_takes_the_fused_kernel_and_agrees(folder: Path) -> None:
    model = InfluenceEncoder.load(folder, 48, "float32").model
    model[0].can_flatten_inputs = False
    np.testing.assert_allclose(vectors(model), vectors(stock(folder)), atol=1e-6)


def test_gradients_are_those_of_transformers(folder: Path) -> None:
    ours, theirs = (InfluenceEncoder.load(folder, 48, "float32") for _ in range(2))
    theirs.model[0].can_flatten_inputs = False
    theirs.model[0].auto_model.set_attn_implementation("eager")
    found = []
    for encoder in (ours, theirs):
        (encoder.forward(SAMPLES)[:, :3] ** 2).sum().backward()
        found.append({n: p.grad for n, p in encoder.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4)


def test_in_training_attention_is_dropped_out(folder: Path) -> None:
    encoder = InfluenceEncoder.load(folder, 48, "float32")
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    encoder.model.train()
    still = encoder.forward(SAMPLES)
    assert torch.equal(still, encoder.forward(SAMPLES))
    for layer in encoder.model[0].auto_model.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    assert not torch.equal(still, encoder.forward(SAMPLES))
