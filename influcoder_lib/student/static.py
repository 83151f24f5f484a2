"""What the ultra-fast student knows of words: a table of token vectors, made from an encoder.

No transformer runs when it encodes: reading the tokens is nearly all of the work. It cannot know
the order of words, which is what it pays.
"""

import copy

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, StaticEmbedding
from sentence_transformers.util import batch_to_device

from influcoder_lib.student.encoder import InfluenceEncoder

# Smooth inverse frequency (Arora et al., ICLR 2017): a token of probability p weighs a / (a + p).
_SMOOTHING = 1e-4
_TOKENS_AT_ONCE = 512


def static_of(encoder: InfluenceEncoder) -> InfluenceEncoder:
    """A static encoder with the tokenizer, window and dimension of this one, before training.

    Each token of the vocabulary is embedded on its own, the vocabulary's mean is taken out, and
    tokens early in the vocabulary are weighed down, by Zipf's law as if its order were that of
    frequency. A BERT's begins with a thousand unused tokens and single characters, so its most
    frequent words keep about two thirds of their weight; ranking words alone made students no
    better. A static encoder comes back as a copy.
    """
    if isinstance(encoder.model[0], StaticEmbedding):
        return encoder.copy()
    tokenizer = encoder.model.tokenizer
    vectors = _token_vectors(encoder)
    ranks = torch.arange(1, len(vectors) + 1, dtype=torch.float32)
    probabilities = 1 / ranks / (1 / ranks).sum()
    weights = _SMOOTHING / (_SMOOTHING + probabilities)
    table = (vectors - vectors.mean(dim=0)) * weights[:, None]
    words = StaticEmbedding(copy.deepcopy(tokenizer.backend_tokenizer), table)
    model = SentenceTransformer(
        modules=[words, Normalize()],
        device=encoder.model.device.type,
        prompts=encoder.model.prompts,
        default_prompt_name=encoder.model.default_prompt_name,
    )
    return InfluenceEncoder(model.eval(), encoder.window, encoder.precision)


def _token_vectors(encoder: InfluenceEncoder) -> torch.Tensor:
    """The encoder's unit vector of each token alone, special tokens about it: (V, d) float32."""
    tokenizer, device = encoder.model.tokenizer, encoder.model.device
    empty = tokenizer("a", return_special_tokens_mask=True)
    at = empty["special_tokens_mask"].index(0)
    frame = torch.tensor(empty["input_ids"])
    found = []
    encoder.model.eval()
    with torch.no_grad(), encoder.computing_in(encoder.precision):
        for tokens in torch.arange(len(tokenizer)).split(_TOKENS_AT_ONCE):
            ids = frame.repeat(len(tokens), 1)
            ids[:, at] = tokens
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            output = encoder.model(batch_to_device(inputs, device))
            found.append(output["sentence_embedding"].float().cpu())
    return torch.nn.functional.normalize(torch.cat(found), dim=1)
