"""Sample ids to whole numbers, for many samples: a dict that is asked and filled in blocks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]
Numbers = NDArray[np.int64]

_KEY = np.dtype("S16")


def keys_of(sample_ids: Sequence[str]) -> Keys:
    """The ids (N,), 32 hex characters each, as keys of 16 bytes, dtype S16."""
    return np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=_KEY)


class IdTable:
    """Keys and the numbers, zero or more, that they stand for; 24 bytes a sample.

    Keys lie in sorted runs, each at least twice as long as the next one (a log-structured merge,
    O'Neil et al. 1996), so that adding N keys in blocks costs O(N log N) and none is sorted twice.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, Numbers]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def get(self, keys: Keys) -> Numbers:
        """The numbers (N,) of the keys (N,), -1 for a key that is not here."""
        found = np.full(len(keys), -1)
        for known, numbers in self._runs:
            at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            same = known[at] == keys
            found[same] = numbers[at[same]]
        return found

    def setdefault(self, keys: Keys, numbers: Numbers) -> Numbers:
        """The same after adding the keys that are not here yet, each with its number (N,), or with
        the first of several."""
        found = self.get(keys)
        new = found < 0
        added, first, back = np.unique(keys[new], return_index=True, return_inverse=True)
        if len(added):
            own = numbers[new][first]
            found[new] = own[back]
            self._add(added, own)
        return found

    def _add(self, keys: Keys, numbers: Numbers) -> None:
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            longer, others = self._runs.pop()
            keys, numbers = np.concatenate([longer, keys]), np.concatenate([others, numbers])
            order = np.argsort(keys, kind="stable")
            keys, numbers = keys[order], numbers[order]
        self._runs.append((keys, numbers))
