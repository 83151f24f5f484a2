"""The FAISS index: one exact segment a shard, searched together; nothing is ever rebuilt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np


@dataclass(frozen=True)
class Hit:
    """One neighbour: its shard, its row in the shard's segment, and the cosine."""

    shard: str
    row: int
    score: float


def write_segment(embeddings: np.ndarray, path: Path) -> None:
    """Write unit vectors (N, d) float32 as an exact inner-product segment."""
    segment = faiss.IndexFlatIP(embeddings.shape[1])
    segment.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    faiss.write_index(segment, str(path))


def read_vectors(path: Path) -> np.ndarray:
    """Vectors (N, d) float32 of a segment, in row order."""
    segment = faiss.read_index(str(path))
    return segment.reconstruct_n(0, segment.ntotal)


def search(segments: Mapping[str, Path], vector: np.ndarray, top: int) -> list[Hit]:
    """The `top` nearest samples over all segments; ties by shard and row."""
    hits: list[Hit] = []
    for shard, path in segments.items():
        segment = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        scores, rows = segment.search(vector.reshape(1, -1).astype(np.float32), top)
        hits.extend(
            Hit(shard, int(row), float(score))
            for row, score in zip(rows[0], scores[0], strict=True)
            if row >= 0
        )
    return best(hits, top)


def best(hits: Sequence[Hit], top: int) -> list[Hit]:
    """The highest hits, ties by shard and row."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.shard, hit.row))[:top]
