"""Vectors keyed by sample, appended as they are made.

A row store is a folder of segments for one key (everything that shapes the vectors: model,
adapter, dtype, window, sketch, code version). Each segment is one safetensors file, written whole
or not at all, so a killed run loses at most the segment in hand and the next one goes on.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from influcoder_lib import fingerprint
from influcoder_lib.errors import StoreError


class RowStore:
    """Appends and looks up vectors of one width and dtype by sample id (32 hex characters).

    Raises:
        StoreError: a segment is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, int]] = {}
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            self._register(path)

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def append(self, sample_ids: Sequence[str], rows: np.ndarray) -> None:
        """Add one segment: rows (n, width), one a sample id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ids = np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=np.uint8)
        name = f"{fingerprint.of_text(*sample_ids)}.safetensors"
        part = self.folder / f".{name}.{secrets.token_hex(4)}.part"
        save_file({"ids": ids.reshape(-1, 16), "rows": np.ascontiguousarray(rows)}, part)
        part.replace(self.folder / name)
        self._register(self.folder / name)

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

    def _register(self, path: Path) -> None:
        try:
            with safe_open(path, framework="numpy") as segment:
                ids = segment.get_tensor("ids")
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"A segment of stored vectors cannot be read: {error}.",
                where=str(path),
                fix="delete that file: its vectors are computed again",
            ) from error
        for row, sample_id in enumerate(ids):
            self._where[sample_id.tobytes().hex()] = (path, row)
