"""Segments of the index: a shard's vectors, and short codes to search them by.

A search looks through the codes of all segments, which are in memory, and ranks the best few
thousand again by their vectors, which stay on disk. Codes come from a seeded rotation and
codebooks of the unit sphere, never from data: no segment depends on another, none is ever rebuilt.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow

from influcoder_lib.vectors import COSINE_DECIMALS, unit_rows

VECTORS = "vectors.npy"
CODES = "codes.npy"

_SEED = 20_260_613
# Numbers that share a code: narrow vectors can pay for more of it, and have less to lose.
_SUBSPACES = {384: 4, 192: 2, 0: 1}
_BITS = 4
_SPHERE = 20_000
# A million vectors have the ten nearest among these, ranked by codes, in 99 of 100 cases.
_RANKED_AGAIN = 2_000
# Where more are asked for, so many for each of them.
_RANKED_AGAIN_EACH = 5
_SPARE = 100
_ROWS_AT_ONCE = 65_536


def narrow(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) as they are stored: float16. A cosine moves by about 0.00001."""
    return vectors.astype(np.float16)


def widen(stored: np.ndarray) -> np.ndarray:
    """Unit vectors (n, d) float32 of stored ones."""
    return unit_rows(stored.astype(np.float32))


def write_segment(blocks: Iterable[np.ndarray], folder: Path) -> int:
    """Write unit vectors, at least one block (n, d) as `narrow` gives them, as VECTORS and CODES.

    Returns how many there are. No more than a block is held in memory.
    """
    with _growing(folder / VECTORS) as add_vectors, _growing(folder / CODES) as add_codes:
        rows = 0
        for block in blocks:
            add_vectors(block)
            add_codes(_codes(widen(block)))
            rows += len(block)
    return rows


def read_vector(path: Path, row: int) -> np.ndarray:
    """One unit vector (d,) float32 of a segment's VECTORS."""
    return widen(_open(path)[row : row + 1])[0]


def read_blocks(path: Path, rows: int) -> Iterator[np.ndarray]:
    """All vectors of a segment's VECTORS in row order, in blocks (n, d) float32 of at most so many
    rows; of an empty segment, one empty block."""
    stored = _open(path)
    for start in range(0, max(len(stored), 1), rows):
        yield widen(stored[start : start + rows])


def lengths(path: Path) -> np.ndarray:
    """Lengths (N,) float32 of a segment's vectors as they are stored: 1, to float16's rounding."""
    stored = _open(path)
    blocks = [
        np.linalg.norm(stored[start : start + _ROWS_AT_ONCE].astype(np.float32), axis=1)
        for start in range(0, max(len(stored), 1), _ROWS_AT_ONCE)
    ]
    return np.concatenate(blocks)


@dataclass(frozen=True)
class Hits:
    """Rows (n,) int64, counted through all segments, with their cosines (n,) to six decimals.

    Highest cosine first; rows of equal cosine in their order.
    """

    rows: np.ndarray
    cosines: np.ndarray


class Segments:
    """Segments searched together: 48 bytes a vector of width 384 in memory, 32 of width 64."""

    def __init__(self, segments: Sequence[tuple[Path, Path]]) -> None:
        """`segments` are the paths of VECTORS and CODES of each; there is at least one."""
        self._vectors = [_open(vectors) for vectors, _ in segments]
        self._starts = np.cumsum([0, *map(len, self._vectors)])
        coded = _empty(self._vectors[0].shape[1])
        for _, codes in segments:
            coded.add_sa_codes(np.ascontiguousarray(_open(codes)))
        self._codes = faiss.IndexPQFastScan(coded)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def nearest(self, vector: np.ndarray, top: int) -> Hits:
        """About the `top` rows of highest cosine with a unit vector (d,) float32.

        Exact up to 2,000 vectors; of a million, 99 of 100 rows are right.
        """
        return self._ranked(vector, self._candidates(vector, top), top)

    def nearest_among(self, vector: np.ndarray, top: int, rows: np.ndarray) -> Hits:
        """The `top` nearest to a unit vector (d,) float32 among rows (n,) int64, sorted; exact
        where fewer than `top` of them are near."""
        near = np.intersect1d(self._candidates(vector, top), rows, assume_unique=True)
        return self._ranked(vector, near if len(near) >= min(top, len(rows)) else rows, top)

    def rows(self, segment: int, own: np.ndarray) -> np.ndarray:
        """Rows (n,) int64 of one segment, counted through all of them."""
        return self._starts[segment] + own

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The segments (n,) int64 of rows (n,) int64, and the rows counted in these."""
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        return segments, rows - self._starts[segments]

    def _candidates(self, vector: np.ndarray, top: int) -> np.ndarray:
        """Sorted rows that the codes put nearest."""
        wanted = min(max(_RANKED_AGAIN_EACH * top, _RANKED_AGAIN), len(self))
        if wanted == 0:
            return np.empty(0, np.int64)
        with _one_thread():
            rotated = _rotation(len(vector)).apply(vector.reshape(1, -1).astype(np.float32))
            _, rows = self._codes.search(rotated, wanted)
        return np.sort(rows[0][rows[0] >= 0])

    def _ranked(self, vector: np.ndarray, rows: np.ndarray, top: int) -> Hits:
        # What is stored has a length of about 1: enough to leave out all but the best.
        about = np.concatenate(
            [
                _products(self._take(rows[start : start + _ROWS_AT_ONCE]), vector)
                for start in range(0, max(len(rows), 1), _ROWS_AT_ONCE)
            ]
        )
        rows = rows[np.sort(np.argsort(-about, kind="stable")[: top + _SPARE])]
        products = _products(widen(self._take(rows)), vector).astype(np.float64)
        cosines = products.round(COSINE_DECIMALS)
        best = np.argsort(-cosines, kind="stable")[:top]
        return Hits(rows[best], cosines[best])

    def _take(self, rows: np.ndarray) -> np.ndarray:
        """Stored vectors of sorted rows."""
        bounds = np.searchsorted(rows, self._starts)
        held = np.flatnonzero(np.diff(bounds))
        width = self._vectors[0].shape[1]
        parts = [
            self._vectors[each][rows[bounds[each] : bounds[each + 1]] - self._starts[each]]
            for each in held
        ]
        return np.concatenate([np.empty((0, width), np.float16), *parts])


def _codes(vectors: np.ndarray) -> np.ndarray:
    """Product-quantised codes (n, bytes) uint8 of vectors (n, d) (Jégou et al. 2011)."""
    empty = _empty(vectors.shape[1])
    if not len(vectors):
        return np.empty((0, empty.sa_code_size()), np.uint8)
    rotated = _rotation(vectors.shape[1]).apply(np.ascontiguousarray(vectors, np.float32))
    return empty.sa_encode(rotated)


def _empty(width: int) -> Any:
    """An index without vectors, its codebooks fitted to the unit sphere."""
    return faiss.clone_index(_fitted(width))


@functools.lru_cache(maxsize=8)
def _fitted(width: int) -> Any:
    inner = _rotation(width).d_out
    index = faiss.IndexPQ(inner, inner // _subspace(width), _BITS, faiss.METRIC_INNER_PRODUCT)
    sphere = np.random.default_rng(_SEED).standard_normal((_SPHERE, inner), dtype=np.float32)
    index.train(unit_rows(sphere))
    return index


@functools.lru_cache(maxsize=8)
def _rotation(width: int) -> faiss.RandomRotationMatrix:
    """Spreads what a vector holds evenly over its numbers, so that codebooks fit all data alike."""
    each = _subspace(width)
    made = faiss.RandomRotationMatrix(width, -(-width // each) * each)
    made.init(_SEED)
    return made


def _subspace(width: int) -> int:
    return next(numbers for least, numbers in _SUBSPACES.items() if width >= least)


@contextmanager
def _growing(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """A .npy file written block by block; its header has room for any number of rows."""
    blocks, rows, like = 0, 0, np.empty((0, 0))

    def header() -> None:
        description = np.lib.format.header_data_from_array_1_0(like)
        shape = {"shape": (rows, *like.shape[1:])}
        np.lib.format.write_array_header_1_0(stream, description | shape)

    def add(block: np.ndarray) -> None:
        nonlocal blocks, rows, like
        if blocks == 0:
            like = block[:0]
            header()
        stream.write(np.ascontiguousarray(block).data)
        blocks, rows = blocks + 1, rows + len(block)

    with path.open("wb") as stream:
        yield add
        stream.seek(0)
        header()


def _open(path: Path) -> np.ndarray:
    """The file's array, mapped rather than read; no file stays open, as there may be thousands."""
    with pyarrow.memory_map(str(path)) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        start = stream.tell()
        stream.seek(0)
        return np.ndarray(shape, dtype, stream.read_buffer(), start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A single query is not divided among threads: on a busy machine they wait for each other."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _products(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Inner products (n,); in one thread, too: BLAS would use all of them."""
    return np.einsum("nd,d->n", vectors.astype(np.float32, copy=False), vector)
