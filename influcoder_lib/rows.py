"""Vectors keyed by sample, appended as they are made.

A row store is a folder of segments for one key (everything that shapes the vectors: model,
adapter, dtype, window, sketch, code version). Each segment is one file, written whole or not at
all, so a killed run loses at most the segment in hand and the next one goes on. With each vector
it is kept whether the sample was cut to fit, and with each sample that has none, why, so that
what is stored never takes a model to read.
"""

import functools
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from influcoder_lib import fingerprint
from influcoder_lib.errors import StoreError
from influcoder_lib.store import write_atomically

FORMAT = "2"
"""Layout of a segment; part of every key, so that segments of another layout are not read."""


class RowStore:
    """Appends and looks up vectors of one width and dtype by sample id (32 hex characters).

    `refused` maps the samples that have no vector to the reason.

    Raises:
        StoreError: a segment is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clear()
        self.catch_up()

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def catch_up(self) -> None:
        """Take notice of segments that other processes added or that someone deleted."""
        paths = set(self.folder.glob("[!.]*.*"))
        if self._read - paths:
            self._clear()
        for path in sorted(paths - self._read):
            self._register(path)

    def append(
        self, sample_ids: Sequence[str], rows: np.ndarray, truncated: np.ndarray | None = None
    ) -> None:
        """Add one segment: rows (n, width), one a sample id; `truncated` (n,) bool says which
        samples were cut to fit (none, if it is not given)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ids = np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=np.uint8)
        cut = np.zeros(len(sample_ids), bool) if truncated is None else truncated
        name = f"{fingerprint.of_text(*sample_ids)}.safetensors"
        part = self.folder / f".{name}.{secrets.token_hex(4)}.part"
        tensors = {"ids": ids.reshape(-1, 16), "rows": np.ascontiguousarray(rows), "truncated": cut}
        save_file(tensors, part)
        part.replace(self.folder / name)
        self._register(self.folder / name)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Remember why these samples have no vector."""
        path = self.folder / f"{fingerprint.of_text(*reasons)}.json"
        write_atomically(path, json.dumps(dict(reasons)).encode())
        self._register(path)

    def take(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Rows (n, width) of the given samples, in their order.

        Raises:
            KeyError: a sample has no row here.
        """
        by_segment: dict[Path, list[tuple[int, int]]] = {}
        for position, sample_id in enumerate(sample_ids):
            path, row = self._where[sample_id]
            by_segment.setdefault(path, []).append((position, row))
        result: np.ndarray | None = None
        for path, pairs in by_segment.items():
            positions, rows = np.array(pairs).T
            with safe_open(path, framework="numpy") as segment:
                stored = segment.get_tensor("rows")
            if result is None:
                result = np.empty((len(sample_ids), stored.shape[1]), dtype=stored.dtype)
            result[positions] = stored[rows]
        return result if result is not None else np.empty((0, 0), dtype=np.float32)

    def truncated(self, sample_ids: Sequence[str]) -> int:
        """How many of the given samples were cut to fit."""
        return sum(sample_id in self._truncated for sample_id in sample_ids)

    def _clear(self) -> None:
        self._where: dict[str, tuple[Path, int]] = {}
        self._truncated: set[str] = set()
        self._read: set[Path] = set()
        self.refused: dict[str, str] = {}

    def _register(self, path: Path) -> None:
        try:
            if path.suffix == ".json":
                self.refused |= json.loads(path.read_text())
            else:
                self._register_segment(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise StoreError(
                f"A segment of stored vectors cannot be read: {error}.",
                where=str(path),
                fix="delete that file: its vectors are computed again",
            ) from error
        self._read.add(path)

    def _register_segment(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as segment:
            ids, truncated = segment.get_tensor("ids"), segment.get_tensor("truncated")
        for row, (sample_id, cut) in enumerate(zip(ids, truncated, strict=True)):
            self._where[sample_id.tobytes().hex()] = (path, row)
            if cut:
                self._truncated.add(sample_id.tobytes().hex())


def open_rows(folder: Path) -> RowStore:
    """The row store of a folder; in one process its segments are read once."""
    rows = _opened(folder)
    rows.catch_up()
    return rows


@functools.lru_cache(maxsize=8)
def _opened(folder: Path) -> RowStore:
    return RowStore(folder)
