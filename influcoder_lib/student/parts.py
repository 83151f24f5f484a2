"""The student that knows prompt from response: an encoder's transformer under a head of ours."""

import copy

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Transformer
from torch import nn

from influcoder_lib.errors import ModelError
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import PartsHead


def parts_of(
    encoder: InfluenceEncoder, dimension: int, seed: int, hidden: int = 512, dropout: float = 0.1
) -> InfluenceEncoder:
    """An encoder with this one's transformer, tokenizer and window and a new head, untrained.

    Raises:
        ModelError: the encoder's first module is no transformer.
    """
    words = encoder.model[0]
    if not isinstance(words, Transformer):
        raise ModelError(
            "Prompt and response cannot be told apart by this encoder.",
            where="encoder.architecture: parts",
            allowed="an encoder whose first module is a Transformer",
        )
    words = copy.deepcopy(words)
    words.auto_model.config.output_hidden_states = True
    depth = int(words.auto_model.config.num_hidden_layers)
    layers = sorted({0, depth // 2, depth})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = PartsHead(layers, words.get_embedding_dimension(), hidden, dimension, dropout)
        nn.init.normal_(head.straight.weight, std=0.01)
    model = SentenceTransformer(
        modules=[words, head, Normalize()],
        device=encoder.model.device.type,
        prompts=encoder.model.prompts,
        default_prompt_name=encoder.model.default_prompt_name,
    )
    return InfluenceEncoder(model.eval(), encoder.window, encoder.precision)
