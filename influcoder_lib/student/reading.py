"""How samples become a sentence-transformers model's inputs: one reader for each kind of model.

Its modules say which kind a model is: a transformer or a table of token vectors (static), and
either reads one text, or has a head that wants prompt and response apart (parts).
"""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from influcoder_lib.errors import ModelError, SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student import attention
from influcoder_lib.student.head import PARTS, KernelHead
from influcoder_lib.student.surface import sample_surfaces

# Facts about where a model came from and what wrote it: they change no vector.
_ORIGIN_KEYS = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}

# Special tokens about prompt and response.
_FRAME = ("start", "end of prompt", "end of response")

_EXAMPLE = Sample("", "prompt", "response")

# The tokenizer's threads share a list of texts; one of more than about 1,000 is no faster.
_STATIC_TOKENS = 2


def text_of(sample: Sample) -> str:
    """A sample as one text: prompt, newline, response (the published student)."""
    return f"{sample.prompt}\n{sample.response}"


class Batch(NamedTuple):
    """Rows (n,) int64 of the samples, which of them are longer than the window (n,) bool, and the
    model's inputs for them, mostly tensors."""

    rows: np.ndarray
    truncated: np.ndarray
    inputs: dict[str, Any]


class Reading(NamedTuple):
    """Samples as a model reads them: what each adds to a batch, (N,) int64 tokens, and the batch
    that rows (n,) of them make."""

    lengths: np.ndarray
    batch: Callable[[np.ndarray], Batch]


class Reader(Protocol):
    """Reads samples for one model. Its `window` is the most tokens read, special ones included."""

    window: int

    def read(self, samples: Sequence[Sample]) -> Reading:
        """The samples, ready to be taken in batches."""

    def facts(self) -> dict[str, Any]:
        """What shapes a sample's tokens and the model's graph, as JSON."""

    def reset(self) -> None:
        """Undo what reading left in a tokenizer and would be saved with it."""


def reader_of(model: SentenceTransformer, window: int) -> Reader:
    """The reader of a model, which reads at most `window` tokens of a sample.

    Raises:
        ModelError: the first module is neither a transformer with a tokenizer nor static.
        SettingsError: the window is below 3 tokens, or 5 where a transformer reads prompt and
            response apart, or beyond the encoder's positions.
    """
    has_parts = any(isinstance(module, KernelHead) for module in model)
    if isinstance(model[0], StaticEmbedding):
        return (StaticPartsReader if has_parts else StaticReader)(model, window)
    if isinstance(getattr(model, "tokenizer", None), PreTrainedTokenizerBase):
        return (PartsReader if has_parts else TransformerReader)(model, window)
    raise ModelError(
        "The encoder has no tokenizer that could be used.",
        allowed="an encoder whose first module is a Transformer or a StaticEmbedding",
    )


class TransformerReader:
    """Takes texts of like length together; the tail of a long one is cut, special tokens stay."""

    least: ClassVar[int] = 3
    """The smallest window: one token between a start and an end."""

    def __init__(self, model: SentenceTransformer, window: int) -> None:
        _check_window(window, self.least, _positions(model[0]))
        self._model, self.window = model, window
        model.max_seq_length = window
        attention.select(model[0])

    def read(self, samples: Sequence[Sample]) -> Reading:
        """Each sample as one text."""
        texts = [text_of(sample) for sample in samples]
        # Reading the lengths apart from the inputs costs 2 % of the time that the model takes.
        lengths = self._lengths(texts)

        def batch(rows: np.ndarray) -> Batch:
            own = [texts[row] for row in rows]
            inputs = self._model.preprocess(own, prompt=_prefix(self._model))
            return Batch(rows, lengths[rows] > self.window, inputs)

        return Reading(np.minimum(lengths, self.window), batch)

    def facts(self) -> dict[str, Any]:
        """The tokenizer, the transformer's config, the prefix and the text."""
        tokenizer = self._model.tokenizer
        config = self._model[0].config.to_diff_dict()
        return {
            "text": text_of(_EXAMPLE),
            "tokenizer": {
                "backend": _backend_facts(tokenizer.backend_tokenizer),
                "inputs": list(tokenizer.model_input_names),
                "sides": [tokenizer.truncation_side, tokenizer.padding_side],
            },
            "architecture": {k: v for k, v in config.items() if k not in _ORIGIN_KEYS},
            "prefix": _prefix(self._model),
        }

    def reset(self) -> None:
        """A fast tokenizer carries the padding and truncation of its last call into its file."""
        self._model.tokenizer.backend_tokenizer.no_truncation()
        self._model.tokenizer.backend_tokenizer.no_padding()

    def _lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text before truncation, special tokens included: (N,) int64."""
        if not texts:
            return np.zeros(0, dtype=np.int64)
        prefix = _prefix(self._model) or ""
        encoded = self._model.tokenizer(
            [prefix + text for text in texts], truncation=False, padding=False, verbose=False
        )
        return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


class PartsReader(TransformerReader):
    """Reads prompt and response as two texts in one row, and says which token is of which."""

    least: ClassVar[int] = len(_FRAME) + PARTS

    def read(self, samples: Sequence[Sample]) -> Reading:
        """Each sample as two texts in one row."""
        prefix = _prefix(self._model) or ""
        prompts = self._tokens([prefix + sample.prompt for sample in samples])
        responses = self._tokens([sample.response for sample in samples])
        room = self.window - len(_FRAME)
        kept = [fitted(*both, room) for both in zip(prompts, responses, strict=True)]
        lengths = np.array([sum(map(len, parts)) + len(_FRAME) for parts in kept], dtype=np.int64)
        counts = np.array([[len(p), len(r)] for p, r in zip(prompts, responses, strict=True)])

        def batch(rows: np.ndarray) -> Batch:
            told = _told([samples[row] for row in rows], counts[rows])
            inputs = self._inputs([kept[row] for row in rows]) | told
            return Batch(rows, counts[rows].sum(axis=1) > room, inputs)

        return Reading(lengths, batch)

    def facts(self) -> dict[str, Any]:
        """The tokenizer, the transformer's config, the prefix and how the parts are laid out."""
        return {**super().facts(), "text": list(_FRAME)}

    def _inputs(self, samples: Sequence[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        """The transformer's inputs and `parts` of `KernelHead.featurize`, int64: rows of start,
        prompt, end, response, end, padded (n, longest), or end to end (1, tokens)."""
        tokenizer, transformer = self._model.tokenizer, self._model[0]
        start = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
        end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
        rows = [[start, *prompt, end, *response, end] for prompt, response in samples]
        lengths = np.array([len(row) for row in rows])
        ids = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
        none = PARTS * len(samples)
        owners = np.full((len(samples), 2 * PARTS + 1), none)
        owners[:, 1::2] = np.arange(none).reshape(-1, PARTS)
        runs = [[1, len(prompt), 1, len(response), 1] for prompt, response in samples]
        parts = np.repeat(owners.ravel(), np.ravel(runs))
        if not transformer.can_flatten_inputs:

            def padded(flat: np.ndarray, padding: int) -> torch.Tensor:
                own = torch.from_numpy(flat).split(lengths.tolist())
                return pad_sequence(own, True, padding, tokenizer.padding_side)

            return {
                "input_ids": padded(ids, tokenizer.pad_token_id or 0),
                "attention_mask": padded(np.ones_like(ids), 0),
                "parts": padded(parts, none),
            }
        ends = lengths.cumsum()
        positions = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
        return {
            "input_ids": torch.from_numpy(ids)[None],
            "position_ids": torch.from_numpy(positions)[None]
            + transformer._flatten_position_offset,
            "cu_seq_lens_q": torch.from_numpy(np.append(0, ends).astype(np.int32)),
            "parts": torch.from_numpy(parts)[None],
        }

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return self._model.tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]


class StaticReader:
    """Concatenates the texts' tokens, no special ones among them; nothing is padded.

    The window lives in the tokenizer, and so in the saved folder too. A text without any token is
    read as the vocabulary's first one, so that every sample has a direction.
    """

    def __init__(self, model: SentenceTransformer, window: int) -> None:
        _check_window(window, TransformerReader.least, None)
        self._model, self.window = model, window
        self._tokenizer: Tokenizer = model[0].tokenizer
        self._tokenizer.enable_truncation(window)

    def read(self, samples: Sequence[Sample]) -> Reading:
        """Each sample as one text. A token takes no memory to speak of, so they count alike."""
        prefix = _prefix(self._model) or ""
        texts = [text_of(sample) for sample in samples]

        def batch(rows: np.ndarray) -> Batch:
            encodings = _encodings(self._model, [prefix + texts[row] for row in rows])
            truncated = np.array([bool(each.overflowing) for each in encodings])
            return Batch(rows, truncated, _bags([each.ids or [0] for each in encodings]))

        return Reading(np.full(len(texts), _STATIC_TOKENS), batch)

    def facts(self) -> dict[str, Any]:
        """The tokenizer, the prefix and the text."""
        return {
            "text": text_of(_EXAMPLE),
            "tokenizer": _backend_facts(self._tokenizer),
            "prefix": _prefix(self._model),
        }

    def reset(self) -> None:
        """Nothing is left in the tokenizer that a plain load does not need."""


class StaticPartsReader:
    """Reads prompt and response as two texts, no special tokens among them; a part without any
    token is empty."""

    def __init__(self, model: SentenceTransformer, window: int) -> None:
        _check_window(window, TransformerReader.least, None)
        self._model, self.window = model, window
        # Tokens beyond the window are counted, so that the tokenizer cuts nothing.
        model[0].tokenizer.no_truncation()

    def read(self, samples: Sequence[Sample]) -> Reading:
        """Each sample as two texts. Tokens count alike, as for `StaticReader`."""
        prefix = _prefix(self._model) or ""

        def batch(rows: np.ndarray) -> Batch:
            own = [samples[row] for row in rows]
            prompts = _encodings(self._model, [prefix + each.prompt for each in own])
            responses = _encodings(self._model, [each.response for each in own])
            both = [(p.ids, r.ids) for p, r in zip(prompts, responses, strict=True)]
            counts = np.array([[len(prompt), len(response)] for prompt, response in both])
            kept = [fitted(*each, self.window) for each in both]
            inputs = _bags(list(chain.from_iterable(kept))) | _told(own, counts)
            return Batch(rows, counts.sum(axis=1) > self.window, inputs)

        return Reading(np.full(len(samples), _STATIC_TOKENS), batch)

    def facts(self) -> dict[str, Any]:
        """The tokenizer, the prefix and that the parts are apart."""
        return {
            "text": ["prompt", "response"],
            "tokenizer": _backend_facts(self._model[0].tokenizer),
            "prefix": _prefix(self._model),
        }

    def reset(self) -> None:
        """Nothing is left in the tokenizer."""


def fitted(prompt: list[int], response: list[int], room: int) -> tuple[list[int], list[int]]:
    """Prompt and response in `room` tokens. If they do not fit, the response keeps at least half
    of it, and what a short prompt leaves; its tail is cut, and of the prompt the head."""
    response = response[: max(room - len(prompt), room // 2)]
    return prompt[max(0, len(prompt) - (room - len(response))) :], response


def _told(samples: Sequence[Sample], counts: np.ndarray) -> dict[str, torch.Tensor]:
    """What a `KernelHead` is told of samples beside their tokens, `counts` (n, PARTS) of them."""
    return {
        "counts": torch.from_numpy(counts.astype(np.float32)),
        "surface": torch.from_numpy(sample_surfaces(samples)),
    }


def _bags(tokens: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Inputs of a `StaticEmbedding`: the tokens end to end, and where each text begins."""
    ends = np.cumsum([len(each) for each in tokens])
    flat = np.fromiter(chain.from_iterable(tokens), np.int64, ends[-1])
    offsets = np.concatenate([[0], ends[:-1]])
    return {"input_ids": torch.from_numpy(flat), "offsets": torch.from_numpy(offsets)}


def _encodings(model: SentenceTransformer, texts: Sequence[str]) -> list[Any]:
    """The texts' tokens by a static model's tokenizer, none of them special."""
    return model[0].tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)


def _positions(transformer: Any) -> int | None:
    """Tokens that a transformer has places for; RoBERTa's table begins with rows for padding."""
    most = getattr(transformer.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    embeddings = getattr(transformer.auto_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return most if padding is None else most - padding - 1


def _check_window(window: int, least: int, most: int | None) -> None:
    if window < least or (most is not None and window > most):
        raise SettingsError(
            f"The encoder cannot read {window} tokens.",
            where="encoder.window",
            allowed=f"{least} to {most} tokens" if most is not None else f"{least} tokens or more",
        )


def _first(*ids: int | None) -> int:
    """The first special token that the tokenizer has."""
    for each in ids:
        if each is not None:
            return each
    raise ModelError(
        "The encoder's tokenizer has no token that could start or end a text.",
        allowed="a tokenizer with cls or bos, and sep or eos",
    )


def _prefix(model: SentenceTransformer) -> str | None:
    """The text that the model's own settings put before every input ("passage: ")."""
    name = model.default_prompt_name
    return None if name is None else model.prompts[name]


def _backend_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    backend = json.loads(tokenizer.to_str())
    return {key: value for key, value in backend.items() if key not in ("truncation", "padding")}
