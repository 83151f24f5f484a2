"""Vectors keyed by sample, appended as they are made.

A row store is a folder of segments for one key (everything that shapes the vectors: model,
adapter, dtype, window, sketch, code version). Each segment is one file, written whole or not at
all, so a killed run loses at most the segment in hand and the next one goes on. A damaged one is
removed when that is noticed, and its vectors are computed again. With each vector
it is kept whether the sample was cut to fit, and with each sample that has none, why, so that
what is stored never takes a model to read.

What the ids of many segments are is written down beside them, in one file, so that opening a store
of thousands costs no more than one of a few; without that file it takes longer, and no more.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from influcoder_lib import fingerprint
from influcoder_lib.atomic import whole, write_atomically
from influcoder_lib.errors import DamageError, StoreError
from influcoder_lib.id_table import IdTable, keys_of
from influcoder_lib.remote import ALONE, Remote, size_of

FORMAT = "2"
"""Layout of a segment; part of every key, so that segments of another layout are not read."""

_MEMORY = ".segments.safetensors"
# So many segments that had to be opened one by one are worth being written down, if they are such
# a share of all: the whole file is written, so with a fixed number it would be quadratic.
_MANY = 64
_SHARE = 1 / 8


class RowStore:
    """Appends and looks up vectors of one width and dtype by sample id (32 hex characters).

    `refused` maps the samples that have no vector to the reason. Segments that others have shared
    through `remote` are brought here when the store is opened, and each new one is sent there.

    Raises:
        DamageError: a segment is damaged; it is removed.
    """

    def __init__(self, folder: Path, remote: Remote = ALONE) -> None:
        self.folder = folder
        self.remote = remote
        remote.exchange(folder)
        self._clear()
        self._recall()
        self.catch_up()

    def __contains__(self, sample_id: str) -> bool:
        return bool(self.known([sample_id])[0])

    def __len__(self) -> int:
        return len(self._places)

    def known(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Which of the samples (n,) bool have a row here."""
        return self._places.get(keys_of(sample_ids)) >= 0

    def catch_up(self) -> None:
        """Take notice of segments that other processes added or that someone deleted."""
        paths = set(self.folder.glob("[!.]*.*"))
        if self._read - paths:
            self._clear()
        for path in sorted(paths - self._read):
            self._register(path)
        if len(self._fresh) >= max(_MANY, _SHARE * len(self._paths)):
            self._remember()

    def append(
        self, sample_ids: Sequence[str], rows: np.ndarray, truncated: np.ndarray | None = None
    ) -> None:
        """Add one segment: rows (n, width), one a sample id; `truncated` (n,) bool says which
        samples were cut to fit (none, if it is not given)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ids = np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=np.uint8)
        cut = np.zeros(len(sample_ids), bool) if truncated is None else truncated
        path = self.folder / f"{fingerprint.of_text(*sample_ids)}.safetensors"
        tensors = {"ids": ids.reshape(-1, 16), "rows": np.ascontiguousarray(rows), "truncated": cut}
        with whole(path) as part:
            save_file(tensors, part, {"content": _content(tensors)})
        self.remote.send([path])
        self._register(path)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Remember why these samples have no vector."""
        path = self.folder / f"{fingerprint.of_text(*reasons)}.json"
        write_atomically(path, json.dumps(dict(reasons)).encode())
        self.remote.send([path])
        self._register(path)

    def take(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Rows (n, width) of the given samples, in their order.

        Raises:
            KeyError: a sample has no row here.
        """
        places = self._places.get(keys_of(sample_ids))
        if (places < 0).any():
            raise KeyError(sample_ids[int(np.argmax(places < 0))])
        segments = np.searchsorted(self._starts, places, side="right") - 1
        result: np.ndarray | None = None
        for segment in np.unique(segments):
            self._check(self._paths[segment])
            positions = np.flatnonzero(segments == segment)
            found = _stored(self._paths[segment], places[positions] - self._starts[segment])
            if result is None:
                result = np.empty((len(sample_ids), found.shape[1]), dtype=found.dtype)
            result[positions] = found
        return result if result is not None else np.empty((0, 0), dtype=np.float32)

    def truncated(self, sample_ids: Sequence[str]) -> int:
        """How many of the given samples were cut to fit."""
        return int((self._truncated.get(keys_of(sample_ids)) >= 0).sum())

    def _clear(self) -> None:
        # A place counts the rows of all segments, one after another, from a segment's start on.
        self._places = IdTable()
        self._truncated = IdTable()
        self._paths: list[Path] = []
        self._starts: list[int] = []
        self._end = 0
        self._read: set[Path] = set()
        self._sound: set[Path] = set()
        self._fresh: list[_Ids] = []
        self.refused: dict[str, str] = {}

    def _register(self, path: Path) -> None:
        try:
            if path.suffix == ".json":
                self.refused |= json.loads(path.read_text())
            else:
                self._register_segment(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise self._damaged(path, f"cannot be read: {error}") from error
        self._read.add(path)

    def _check(self, path: Path) -> None:
        """Look at all bytes of a segment, once in a process."""
        if path in self._sound:
            return
        try:
            with safe_open(path, framework="numpy") as segment:
                tensors = {name: segment.get_tensor(name) for name in segment.keys()}  # noqa: SIM118
                content = (segment.metadata() or {}).get("content")
        except (OSError, ValueError, SafetensorError) as error:
            raise self._damaged(path, f"cannot be read: {error}") from error
        if content is not None and content != _content(tensors):
            raise self._damaged(path, "is damaged: its bytes are not those that were written")
        self._sound.add(path)

    def _damaged(self, path: Path, problem: str) -> DamageError:
        """Removes a segment that cannot be used, here and there, and says so."""
        path.unlink(missing_ok=True)
        self.remote.remove([path])
        return DamageError(
            f"A segment of stored vectors {problem}.",
            where=str(path),
            fix="run again: the segment is removed, and its vectors are computed again",
        )

    def _register_segment(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as segment:
            found = _Ids(
                [path.name],
                [path.stat().st_size],
                [len(segment.get_tensor("truncated"))],
                segment.get_tensor("ids").reshape(-1, 16),
                segment.get_tensor("truncated"),
            )
        self._know(found)
        self._fresh.append(found)

    def _know(self, found: "_Ids") -> None:
        keys = np.ascontiguousarray(found.ids).view("S16").ravel()
        places = np.arange(self._end, self._end + len(keys))
        self._places.setdefault(keys, places)
        self._truncated.setdefault(keys[found.truncated], places[found.truncated])
        self._paths += [self.folder / name for name in found.names]
        ends = self._end + np.cumsum(found.rows)
        self._starts += [int(end) - rows for end, rows in zip(ends, found.rows, strict=True)]
        self._end += len(keys)

    def _recall(self) -> None:
        """Know what is written down, if every segment in it is there as it was."""
        found = _read_ids(self.folder / _MEMORY)
        paths = [self.folder / name for name in found.names]
        if found.names and [size_of(path) for path in paths] == found.sizes:
            self._know(found)
            self._read |= set(paths)

    def _remember(self) -> None:
        """Write down what is known of all segments that were read."""
        told = _read_ids(self.folder / _MEMORY)
        if not set(told.names) <= {path.name for path in self._read}:
            told = _NOTHING
        fresh = [each for each in self._fresh if each.names[0] not in told.names]
        _write_ids(self.folder / _MEMORY, [told, *fresh])
        self._fresh.clear()


def _content(tensors: Mapping[str, np.ndarray]) -> str:
    return fingerprint.of_pairs((name, fingerprint.of_array(tensors[name])) for name in tensors)


class _Ids(NamedTuple):
    """Segments one after another: their names, bytes and rows; of all rows, the ids (n, 16) uint8
    and which were truncated (n,) bool."""

    names: list[str]
    sizes: list[int]
    rows: list[int]
    ids: np.ndarray
    truncated: np.ndarray


_NOTHING = _Ids([], [], [], np.empty((0, 16), np.uint8), np.empty(0, bool))


def _read_ids(path: Path) -> _Ids:
    """What is written down; nothing where that cannot be read."""
    try:
        with safe_open(path, framework="numpy") as stored:
            names, sizes, rows = json.loads(stored.metadata()["segments"])
            return _Ids(
                names, sizes, rows, stored.get_tensor("ids"), stored.get_tensor("truncated")
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return _NOTHING


def _write_ids(path: Path, parts: Sequence[_Ids]) -> None:
    listed = [list(chain.from_iterable(each[place] for each in parts)) for place in range(3)]
    tensors = {
        "ids": np.concatenate([each.ids for each in parts]),
        "truncated": np.concatenate([each.truncated for each in parts]),
    }
    # A store that can be read but not written is only slower to open.
    with suppress(StoreError):
        write_atomically(path, save(tensors, {"segments": json.dumps(listed)}))


def _stored(path: Path, rows: np.ndarray) -> np.ndarray:
    """These rows of a segment; of the file, only the runs of neighbours among them are read."""
    wanted, back = np.unique(rows, return_inverse=True)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
    with safe_open(path, framework="numpy") as segment:
        stored = segment.get_slice("rows")
        return np.concatenate([stored[int(run[0]) : int(run[-1]) + 1] for run in runs])[back]


def open_rows(folder: Path, remote: Remote = ALONE) -> RowStore:
    """The row store of a folder; in one process its segments are read once."""
    rows = _opened(folder, remote)
    rows.catch_up()
    return rows


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, remote: Remote) -> RowStore:
    return RowStore(folder, remote)
