"""Rep-Sim: what the target model itself makes of a sample, without a gradient."""

from collections.abc import Sequence

import numpy as np
import torch

from influcoder_lib.budget import batches
from influcoder_lib.hardware import computing_in
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel
from influcoder_lib.teacher.tokens import span_encoder


class Representations:
    """The target model's last hidden state at a sample's last token (DATE-LM, arXiv 2507.09424).

    Samples become tokens as for gradients, end-of-sequence included. Queries and candidates are
    read alike; their cosine is the score (`encoder.EncoderCosine`).
    """

    def __init__(self, target: TargetModel, window: int, tokens_per_batch: int) -> None:
        self.target = target
        self.spans = span_encoder(target, window)
        self.tokens_per_batch = tokens_per_batch

    def read(
        self, samples: Sequence[Sample], role: str = "candidate", resemblance: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (N, h) float32 in the samples' order, and which were cut to fit (N,) bool."""
        spans = self.spans.encode(samples)
        vectors = np.empty((len(samples), self.target.model.config.hidden_size), dtype=np.float32)
        for rows in batches([len(span.ids) for span in spans], self.tokens_per_batch):
            vectors[rows] = self._last([spans[row].ids for row in rows])
        return vectors, np.array([span.truncated for span in spans], dtype=bool)

    def encode(self, samples: Sequence[Sample]) -> np.ndarray:
        """Vectors (N, h) float32 in the samples' order."""
        return self.read(samples)[0]

    def encode_queries(self, samples: Sequence[Sample], resemblance: float = 0.0) -> np.ndarray:
        """Vectors (N, h) float32 of queries, which are read as candidates are."""
        return self.encode(samples)

    def _last(self, ids: list[list[int]]) -> np.ndarray:
        device = self.target.model.device
        # Tokens to the right are not seen, so what pads a row does not matter.
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], True, 0)
        with torch.no_grad(), computing_in(self.target.dtype, device):
            states = self.target.model.base_model(input_ids=padded.to(device), use_cache=False)[0]
        last = torch.tensor([len(row) - 1 for row in ids], device=device)
        return states[torch.arange(len(ids), device=device), last].float().cpu().numpy()
