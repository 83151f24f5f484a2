"""The influence encoder: samples in, unit vectors out; load, save and fingerprint.

It wraps a sentence-transformers model; what a student makes of prompt and response is its reader's
affair (`reading.py`).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize
from sentence_transformers.util import batch_to_device

from influcoder_lib import fingerprint
from influcoder_lib.budget import TokenBudget, batches, reordered
from influcoder_lib.errors import StoreError
from influcoder_lib.hardware import computing_in, deterministic, dtype_of
from influcoder_lib.precision import Precision
from influcoder_lib.samples import Role, Sample
from influcoder_lib.student.folder import open_model
from influcoder_lib.student.head import KernelHead
from influcoder_lib.student.reading import Batch, reader_of

# The activations of so many tokens stay in a CPU's caches; with fewer a GPU waits for its orders.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}


class InfluenceEncoder:
    """A text encoder whose cosines of queries and candidates are to follow influence.

    At most `window` tokens of a sample are read, the tokenizer's special tokens among them. Of one
    text (`text_of`) the **tail** is cut, so of a sample with a long prompt little or nothing of the
    response is left; a student that knows the parts keeps some of both. `read` says which samples
    that concerns, so that it can be counted and reported. `precision` is that of the matrix
    products in `encode`; the weights are float32 whatever it is. A static model (token vectors, no
    transformer) has no matrix products. `budget` bounds a batch.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        window: int,
        precision: Precision = "auto",
    ) -> None:
        """Wrap a model, whose own window is set to this one."""
        self.model = model
        self.precision: Precision = precision
        self._reader = reader_of(model, window)
        self.budget = TokenBudget(_BATCH_TOKENS[model.device.type], "encoder.window")

    @classmethod
    def load(cls, folder: Path, window: int, precision: Precision = "auto") -> "InfluenceEncoder":
        """Read a local sentence-transformers folder; no network, no foreign code, no pickles.

        `window` is the most tokens read of a sample. The weights are held in float32, on the GPU
        if there is one. A folder without a final `Normalize` module gets one.

        Raises:
            ModelError: the folder cannot be loaded, has a module with pickled weights only, has
                no tokenizer that can be used, or cuts its vectors (`truncate_dim`).
            SettingsError: the window is below 3 tokens, or 5 of a kernel student, or beyond the
                encoder's positions.
        """
        model = open_model(folder)
        if not isinstance(model[-1], Normalize):
            model.append(Normalize())
        return cls(model.eval(), window, precision)

    def encode(self, samples: Sequence[Sample]) -> np.ndarray:
        """Unit vectors (N, d) float32 of candidates, in their order, without gradients.

        Samples of like length share a batch of as many tokens as have fitted into memory so far,
        padding included. What a sample's neighbours are changes its vector by float noise only:
        about 1e-7 in float32, 1e-3 in bfloat16, and the square root of that in the last number of a
        `KernelHead` where it is near 0. The model is left in evaluation mode.
        """
        return self.read(samples)[0]

    def encode_queries(self, samples: Sequence[Sample], resemblance: float = 0.0) -> np.ndarray:
        """Unit vectors (N, d) float32 of queries, for scores of which `resemblance`, in [0, 1), is
        plain resemblance and the rest influence. Only a `KernelHead` tells the two apart."""
        return self.read(samples, "query", resemblance)[0]

    def read(
        self,
        samples: Sequence[Sample],
        role: Role = "candidate",
        resemblance: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (N, d) float32 of samples in this role, in their order, and which of them
        are longer than the window and were cut: (N,) bool. `resemblance` is for queries.

        Raises:
            ModelError: a sample does not fit into memory, even alone.
        """
        self.model.eval()
        vectors = np.empty((len(samples), self.dimension), dtype=np.float32)
        truncated = np.zeros(len(samples), dtype=bool)
        for batch, block in self.compute(samples, role, self._units):
            vectors[batch.rows] = block.cpu().numpy()
            truncated[batch.rows] = batch.truncated
        if role == "query":
            for head in (each for each in self.model if isinstance(each, KernelHead)):
                vectors = head.blended(vectors, resemblance)
        return vectors, truncated

    def forward(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Unit vectors (n, d) float32 of n >= 1 samples, differentiable, on the model's device.

        Batched by length as in `encode`, but the graph holds all of them. Dropout is on exactly
        when `model` is in training mode. An autocast context around the call is respected.
        """
        reading = self._reader.read(samples)
        taken = list(batches(reading.lengths, self.budget.tokens))
        return reordered(
            taken, (self._units(self._moved(reading.batch(rows), "candidate")) for rows in taken)
        )

    def computing_in(self, precision: Precision) -> AbstractContextManager[Any]:
        """A context in which matrix products are computed in this precision."""
        device = self.model.device
        return computing_in(dtype_of(precision, device), device)

    def save(self, folder: Path) -> None:
        """Write a folder that `load` reads, with safetensors weights only.

        Without a head of ours `SentenceTransformer(folder)` loads it too, and there the text
        `prompt + newline + response` has the same vector. Equal encoders write equal bytes, given
        equal versions of the libraries.

        Raises:
            StoreError: the folder is not empty.
        """
        if folder.exists() and any(folder.iterdir()):
            raise StoreError("The encoder's folder is not empty.", where=str(folder))
        self._reader.reset()
        self.model.save(str(folder), create_model_card=False, safe_serialization=True)

    def copy(self) -> "InfluenceEncoder":
        """An encoder with weights of its own."""
        return InfluenceEncoder(copy.deepcopy(self.model), self.window, self.precision)

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
                **self._reader.facts(),
            }
        )

    def compute(
        self,
        samples: Sequence[Sample],
        role: Role,
        run: Callable[[Batch], torch.Tensor],
    ) -> Iterator[tuple[Batch, torch.Tensor]]:
        """One batch after another with what `run` gives for it, without gradients. A batch has the
        model's inputs on its device; one that does not fit into memory is split.

        Raises:
            ModelError: a sample does not fit into memory, even alone.
        """
        reading = self._reader.read(samples)

        def run_rows(rows: np.ndarray) -> tuple[Batch, torch.Tensor]:
            with torch.no_grad(), deterministic(), self.computing_in(self.precision):
                batch = self._moved(reading.batch(rows), role)
                return batch, run(batch)

        return self.budget.spend(
            reading.lengths, run_rows, lambda row: f"sample {samples[row].sample_id}"
        )

    def _moved(self, batch: Batch, role: Role) -> Batch:
        """The batch with its inputs on the model's device."""
        inputs = {**batch_to_device(batch.inputs, self.model.device), "role": role}
        return batch._replace(inputs=inputs)

    def _units(self, batch: Batch) -> torch.Tensor:
        """Unit vectors (n, d) of a batch."""
        vectors = self.model(batch.inputs)["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=1)


def _module_facts(module: Any) -> dict[str, Any]:
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {"kind": type(module).__name__, "settings": settings}
