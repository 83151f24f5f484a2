"""A tiny sentence-transformers encoder, built on the spot: random weights, a few words."""

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

_WORDS = [*"abcdefgh", "red", "green", "blue", "cat", "dog", "bird", "runs", "sings", "sleeps"]
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *_WORDS,
    "is",
    "the",
    "##s",
    "##ing",
    ".",
    "?",
]


def tiny_encoder(folder: Path) -> Path:
    """Write the encoder (2 layers of 32, 64 positions, mean pooling) into `folder`; returns it."""
    base = folder / "base"
    base.mkdir(parents=True)
    (base / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (base / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    BertTokenizerFast.from_pretrained(base).save_pretrained(base)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(base)
    words = Transformer(str(base))
    pooled = Pooling(words.get_embedding_dimension())
    model = SentenceTransformer(modules=[words, pooled, Normalize()], device="cpu")
    model.save(str(folder / "encoder"), create_model_card=False)
    return folder / "encoder"
