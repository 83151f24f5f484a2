"""Segments of the FAISS index: one exact one a shard, searched together; none is ever rebuilt."""

from pathlib import Path

import faiss
import numpy as np


def write_segment(embeddings: np.ndarray, path: Path) -> None:
    """Write unit vectors (N, d) float32 as an exact inner-product segment."""
    segment = faiss.IndexFlatIP(embeddings.shape[1])
    segment.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    faiss.write_index(segment, str(path))


def read_vectors(path: Path) -> np.ndarray:
    """Vectors (N, d) float32 of a segment, in row order."""
    segment = faiss.read_index(str(path))
    return segment.reconstruct_n(0, segment.ntotal)
