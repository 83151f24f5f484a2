"""Tiny models and tokenizers with random weights, built on the spot: an encoder, and decoders."""

import json
import string
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

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

ARCHITECTURES = ("llama", "qwen", "gpt_neox", "gpt2", "gemma2", "gemma3")
SPECIAL_TOKENS = ("<unk>", "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHARACTERS = string.ascii_lowercase + string.digits + " \n.,?!:'-"
POSITIONS = 512
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_WITH_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nyou are helpful<|im_end|>\n{% endif %}" + CHATML
)


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


def tiny_tokenizer(
    chat_template: str | None = None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """One token a character, `SPECIAL_TOKENS` besides; other characters are `<unk>`."""
    words = [*SPECIAL_TOKENS, *CHARACTERS]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    if adds_bos:
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", words.index("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=chat_template,
    )


def tiny_target(folder: Path, architecture: str, chat_template: str | None = None) -> Path:
    """Write a decoder (one of `ARCHITECTURES`; 2 blocks of width 32) and a tokenizer; returns it.

    Weights are float32, random and seeded, norms and biases included.
    """
    tokenizer = tiny_tokenizer(chat_template)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(_decoder_config(architecture, len(tokenizer)))
        model.requires_grad_(False)
        for parameter in model.parameters():
            mean = float(parameter.mean()) if parameter.ndim == 1 else 0.0
            torch.nn.init.normal_(parameter, mean, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _decoder_config(architecture: str, words: int) -> PreTrainedConfig:
    ids = {
        name: SPECIAL_TOKENS.index(token)
        for name, token in (
            ("pad_token_id", "<pad>"),
            ("bos_token_id", "<s>"),
            ("eos_token_id", "</s>"),
        )
    }
    size = {"vocab_size": words, "max_position_embeddings": POSITIONS, **ids}
    shape = {
        **size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    grouped = {**shape, "num_key_value_heads": 2}
    gemma = {**grouped, "head_dim": 8, "sliding_window": 8}
    match architecture:
        case "llama":
            return LlamaConfig(**grouped)
        case "qwen":
            return Qwen3Config(**grouped, head_dim=8)
        case "gpt_neox":
            return GPTNeoXConfig(**shape)
        case "gpt2":
            return GPT2Config(**size, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4)
        case "gptj":
            del size["max_position_embeddings"]
            heads = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
            return GPTJConfig(**size, **heads, n_positions=POSITIONS)
        case "gemma2":
            return Gemma2Config(**gemma, attn_logit_softcapping=1.0)
        case "gemma3":
            layers = ["sliding_attention", "full_attention"]
            return Gemma3TextConfig(**gemma, layer_types=layers)
    raise ValueError(f"no tiny decoder {architecture!r}; there are {ARCHITECTURES}")
