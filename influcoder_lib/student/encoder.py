"""The influence encoder: samples in, unit vectors out; load, save and fingerprint.

It wraps a sentence-transformers model, and what it saves is a plain sentence-transformers folder.
What a student makes of prompt and response is decided here and nowhere else (`text_of`).
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize
from sentence_transformers.util import batch_to_device

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError, StoreError
from influcoder_lib.samples import Sample
from influcoder_lib.student.reading import Batch, reader_of

Precision = Literal["float32", "bfloat16"]


def text_of(sample: Sample) -> str:
    """What the encoder reads of a sample: prompt, newline, response (the published student)."""
    return f"{sample.prompt}\n{sample.response}"


class InfluenceEncoder:
    """A text encoder whose cosines are to follow influence; queries and candidates alike.

    Only the first `window` tokens of `text_of(sample)`, the tokenizer's special tokens among them,
    are read: the **tail** of the text is cut, so of a sample with a long prompt little or nothing
    of the response is left. `read` says which samples that concerns, so that it can be
    counted and reported. `precision` is that of the matrix products in `encode`; the weights are
    float32 whatever it is. A static model (token vectors, no transformer) has no matrix products.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        window: int | None = None,
        precision: Precision = "bfloat16",
    ) -> None:
        """Wrap a model; without a window it keeps its own."""
        self.model = model
        self.precision: Precision = precision
        self._reader = reader_of(model, window)

    @classmethod
    def load(
        cls, folder: Path, window: int, precision: Precision = "bfloat16"
    ) -> "InfluenceEncoder":
        """Read a local sentence-transformers folder; no network, no foreign code, no pickles.

        `window` is the most tokens read of a sample. The weights are held in float32, on the GPU
        if there is one. A folder without a final `Normalize` module gets one.

        Raises:
            ModelError: the folder cannot be loaded, has a module with pickled weights only, has
                no tokenizer that can be used, or cuts its vectors (`truncate_dim`).
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
        _refuse_cut_vectors(model, folder)
        if not isinstance(model[-1], Normalize):
            model.append(Normalize())
        return cls(model.eval(), window, precision)

    def encode(self, samples: Sequence[Sample], batch_tokens: int = 2048) -> np.ndarray:
        """Unit vectors (N, d) float32 of the samples, in their order, without gradients.

        Samples of like length share a batch of at most `batch_tokens` tokens, padding included
        (or of one sample), so what a sample's neighbours are changes its vector by float noise
        only: about 1e-7 in float32, 1e-3 in bfloat16. The model is left in evaluation mode.
        """
        return self.read(samples, batch_tokens)[0]

    def read(
        self, samples: Sequence[Sample], batch_tokens: int = 2048
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of `encode`, and which samples are longer than the window and lost their
        tail: (N,) bool."""
        self.model.eval()
        vectors = np.empty((len(samples), self.dimension), dtype=np.float32)
        truncated = np.zeros(len(samples), dtype=bool)
        with torch.no_grad(), self.computing_in(self.precision):
            for batch, block in self._blocks(samples, batch_tokens):
                vectors[batch.rows] = block.cpu().numpy()
                truncated[batch.rows] = batch.truncated
        return vectors, truncated

    def forward(self, samples: Sequence[Sample], batch_tokens: int = 2048) -> torch.Tensor:
        """Unit vectors (n, d) float32 of n >= 1 samples, differentiable, on the model's device.

        Batched by length as in `encode`, but the graph holds all of them. Dropout is on exactly
        when `model` is in training mode. An autocast context around the call is respected.
        """
        batches, blocks = zip(*self._blocks(samples, batch_tokens), strict=True)
        back = np.argsort(np.concatenate([batch.rows for batch in batches]), kind="stable")
        return torch.cat(blocks)[torch.from_numpy(back).to(self.model.device)]

    def computing_in(self, precision: Precision) -> AbstractContextManager[Any]:
        """A context in which matrix products are computed in this precision."""
        narrow = precision == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=narrow)

    def save(self, folder: Path) -> None:
        """Write a folder that `SentenceTransformer(folder)` loads, with safetensors weights only.

        There, encoding the text `prompt + newline + response` gives the same vectors. Equal
        encoders write equal bytes, given equal versions of the libraries.

        Raises:
            StoreError: the folder is not empty.
        """
        if folder.exists() and any(folder.iterdir()):
            raise StoreError("The encoder's folder is not empty.", where=str(folder))
        self._reader.reset()
        self.model.save(str(folder), create_model_card=False, safe_serialization=True)

    def copy(self) -> "InfluenceEncoder":
        """An encoder with weights of its own."""
        return InfluenceEncoder(copy.deepcopy(self.model), precision=self.precision)

    @property
    def window(self) -> int:
        """The most tokens read of a sample, special tokens included."""
        return self._reader.window

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that shapes a vector: weights, tokenizer, modules, window,
        precision, join.

        Computed anew at each access, as training changes the weights. Where the folder lies and
        whether it was saved in between does not matter.
        """
        weights = fingerprint.of_pairs(
            (name, fingerprint.of_array(value.cpu().numpy()))
            for name, value in self.model.state_dict().items()
        )
        return fingerprint.of_json(
            {
                "weights": weights,
                "modules": [_module_facts(module) for module in self.model],
                "window": self.window,
                "precision": self.precision,
                "text": text_of(Sample("", "prompt", "response")),
                **self._reader.facts(),
            }
        )

    def _blocks(
        self, samples: Sequence[Sample], batch_tokens: int
    ) -> Iterator[tuple[Batch, torch.Tensor]]:
        """One batch after another with its unit vectors."""
        texts = [text_of(sample) for sample in samples]
        for batch in self._reader.batches(texts, batch_tokens):
            output = self.model(batch_to_device(batch.inputs, self.model.device))
            vectors = output["sentence_embedding"].float()
            yield batch, torch.nn.functional.normalize(vectors, dim=1)


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


def _refuse_cut_vectors(model: SentenceTransformer, folder: Path) -> None:
    if model.truncate_dim is not None:
        raise ModelError(
            f"The encoder cuts its vectors to {model.truncate_dim} numbers.",
            where=f"{folder / 'config_sentence_transformers.json'}, key truncate_dim",
            fix="remove the key: all of a vector is used",
        )


def _module_facts(module: Any) -> dict[str, Any]:
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {"kind": type(module).__name__, "settings": settings}
