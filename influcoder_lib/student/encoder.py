"""The influence encoder: samples in, unit vectors out; load, save and fingerprint.

It wraps a sentence-transformers model, and what it saves is a plain sentence-transformers folder.
What a student makes of prompt and response is decided here and nowhere else (`text_of`).
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize
from sentence_transformers.util import batch_to_device
from transformers import PreTrainedTokenizerBase

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError, SettingsError, StoreError
from influcoder_lib.samples import Sample

Precision = Literal["float32", "bfloat16"]

# Facts about where a model came from and what wrote it: they change no vector.
_ORIGIN_KEYS = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


def text_of(sample: Sample) -> str:
    """What the encoder reads of a sample: prompt, newline, response (the published student)."""
    return f"{sample.prompt}\n{sample.response}"


class InfluenceEncoder:
    """A text encoder whose cosines are to follow influence; queries and candidates alike.

    Only the first `window` tokens of `text_of(sample)`, the tokenizer's special tokens among them,
    are read: the **tail** of the text is cut, so of a sample with a long prompt little or nothing
    of the response is left. `truncated` says which samples that concerns, so that it can be
    counted and reported.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path, window: int) -> "InfluenceEncoder":
        """Read a local sentence-transformers folder; no network, no foreign code, no pickles.

        `window` is the most tokens read of a sample. The weights are held in float32, on the GPU
        if there is one. A folder without a final `Normalize` module gets one.

        Raises:
            ModelError: the folder cannot be loaded, has a module with pickled weights only, has
                no transformers tokenizer, or cuts its vectors (`truncate_dim`).
            SettingsError: the window is below 3 tokens or beyond the encoder's positions.
        """
        _refuse_pickles(folder)
        try:
            model = SentenceTransformer(
                str(folder.resolve(strict=True)),
                device="cuda" if torch.cuda.is_available() else "cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            raise ModelError(f"The encoder cannot be loaded: {error}", where=str(folder)) from error
        _check_model(model, folder, window)
        model.max_seq_length = window
        if not isinstance(model[-1], Normalize):
            model.append(Normalize())
        return cls(model.eval())

    def encode(
        self,
        samples: Sequence[Sample],
        batch_tokens: int = 4096,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors (N, d) float32 of the samples, in their order, without gradients.

        Samples of like length share a batch of at most `batch_tokens` tokens, padding included
        (or of one sample), so what a sample's neighbours are changes its vector by float noise
        only. The model is left in evaluation mode. In `bfloat16` that noise is about a thousand
        times larger, and a CPU with AMX takes about half the time.
        """
        self.model.eval()
        vectors = np.empty((len(samples), self.dimension), dtype=np.float32)
        with torch.no_grad(), self.computing_in(precision):
            for rows, block in self._blocks(samples, batch_tokens):
                vectors[rows] = block.cpu().numpy()
        return vectors

    def forward(self, samples: Sequence[Sample], batch_tokens: int = 2048) -> torch.Tensor:
        """Unit vectors (n, d) float32 of n >= 1 samples, differentiable, on the model's device.

        Batched by length as in `encode`, but the graph holds all of them. Dropout is on exactly
        when `model` is in training mode. An autocast context around the call is respected.
        """
        rows, blocks = zip(*self._blocks(samples, batch_tokens), strict=True)
        back = np.argsort(np.concatenate(rows), kind="stable")
        return torch.cat(blocks)[torch.from_numpy(back).to(self.model.device)]

    def computing_in(self, precision: Precision) -> AbstractContextManager[Any]:
        """A context in which matrix products are computed in this precision."""
        narrow = precision == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=narrow)

    def truncated(self, samples: Sequence[Sample]) -> np.ndarray:
        """Which samples are longer than the window and lose their tail: (N,) bool."""
        return self._lengths([text_of(sample) for sample in samples]) > self.window

    def save(self, folder: Path) -> None:
        """Write a folder that `SentenceTransformer(folder)` loads, with safetensors weights only.

        There, encoding the text `prompt + newline + response` gives the same vectors. Equal
        encoders write equal bytes, given equal versions of the libraries.

        Raises:
            StoreError: the folder is not empty.
        """
        if folder.exists() and any(folder.iterdir()):
            raise StoreError("The encoder's folder is not empty.", where=str(folder))
        # A fast tokenizer carries the padding and truncation of its last call into its file.
        self._tokenizer.backend_tokenizer.no_truncation()
        self._tokenizer.backend_tokenizer.no_padding()
        self.model.save(str(folder), create_model_card=False, safe_serialization=True)

    def copy(self) -> "InfluenceEncoder":
        """An encoder with weights of its own."""
        return InfluenceEncoder(copy.deepcopy(self.model))

    @property
    def window(self) -> int:
        """The most tokens read of a sample, special tokens included."""
        return int(self.model.max_seq_length)

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that shapes a vector: weights, tokenizer, modules, window, join.

        Computed anew at each access, as training changes the weights. Where the folder lies and
        whether it was saved in between does not matter.
        """
        weights = fingerprint.of_pairs(
            (name, fingerprint.of_array(value.cpu().numpy()))
            for name, value in self.model.state_dict().items()
        )
        config = self.model[0].config.to_diff_dict()
        return fingerprint.of_json(
            {
                "weights": weights,
                "tokenizer": _tokenizer_facts(self._tokenizer),
                "modules": [_module_facts(module) for module in self.model],
                "architecture": {k: v for k, v in config.items() if k not in _ORIGIN_KEYS},
                "prefix": self._prefix,
                "window": self.window,
                "text": text_of(Sample("", "prompt", "response")),
            }
        )

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self.model.tokenizer

    @property
    def _prefix(self) -> str | None:
        """The text that the model's own settings put before every input ("passage: ")."""
        name = self.model.default_prompt_name
        return None if name is None else self.model.prompts[name]

    def _lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text before truncation, special tokens included: (N,) int64."""
        if not texts:
            return np.zeros(0, dtype=np.int64)
        prefixed = [(self._prefix or "") + text for text in texts]
        encoded = self._tokenizer(prefixed, truncation=False, padding=False, verbose=False)
        return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)

    def _blocks(
        self, samples: Sequence[Sample], batch_tokens: int
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Rows and unit vectors of one length-sorted batch after another."""
        texts = [text_of(sample) for sample in samples]
        lengths = np.minimum(self._lengths(texts), self.window)
        for rows in batches_by_length(lengths, batch_tokens):
            features = self.model.preprocess([texts[row] for row in rows], prompt=self._prefix)
            output = self.model(batch_to_device(features, self.model.device))
            vectors = output["sentence_embedding"].float()
            yield rows, torch.nn.functional.normalize(vectors, dim=1)


def batches_by_length(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Cut rows (N,) of these token lengths, longest first, into batches of bounded padded size.

    A batch's rows times its longest row is at most `batch_tokens`, unless one row alone exceeds it.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(batch_tokens // longest, 1)
        yield order[start:stop]
        start = stop


def _refuse_pickles(folder: Path) -> None:
    """sentence-transformers falls back to a pickle for a module that has no safetensors file."""
    for path in sorted(folder.rglob("pytorch_model.bin")):
        if not (path.parent / "model.safetensors").is_file():
            raise ModelError(
                "A module of the encoder has its weights only as a pickle.",
                where=str(path),
                allowed="model.safetensors: a pickle can run code when it is read",
                fix="load and save the encoder once with sentence-transformers",
            )


def _check_model(model: SentenceTransformer, folder: Path, window: int) -> None:
    if not isinstance(getattr(model, "tokenizer", None), PreTrainedTokenizerBase):
        raise ModelError(
            "The encoder has no transformers tokenizer.",
            where=str(folder),
            allowed="an encoder whose first module is a Transformer",
        )
    if model.truncate_dim is not None:
        raise ModelError(
            f"The encoder cuts its vectors to {model.truncate_dim} numbers.",
            where=f"{folder / 'config_sentence_transformers.json'}, key truncate_dim",
            fix="remove the key: all of a vector is used",
        )
    positions = getattr(model[0].config, "max_position_embeddings", None)
    most = positions if isinstance(positions, int) and positions > 0 else None
    if window < 3 or (most is not None and window > most):
        raise SettingsError(
            f"The encoder cannot read {window} tokens.",
            where=f"window of the encoder in {folder}",
            allowed=f"3 to {most} tokens" if most is not None else "3 tokens or more",
        )


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    facts = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}
    facts["sides"] = [tokenizer.truncation_side, tokenizer.padding_side]
    return {"backend": facts, "inputs": list(tokenizer.model_input_names)}


def _module_facts(module: Any) -> dict[str, Any]:
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {"kind": type(module).__name__, "settings": settings}
