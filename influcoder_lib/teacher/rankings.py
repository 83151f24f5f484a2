"""Influence matrices and the splits they are judged on."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Literal

import numpy as np

from influcoder_lib import fingerprint
from influcoder_lib.vectors import unit_rows

Split = Literal["train", "validation", "test"]
_SHINGLE = 5
_NEAR = 0.8


def centring_mean(candidate_features: np.ndarray) -> np.ndarray:
    """Mean (D,) float32 of the train candidates' unit features (n, D)."""
    return candidate_features.astype(np.float32).mean(axis=0)


def centre(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit features (n, D) float32 after the mean (D,) is subtracted."""
    return unit_rows(features.astype(np.float32) - mean)


def influence(query_features: np.ndarray, candidate_features: np.ndarray) -> np.ndarray:
    """Cosines (Q, N) float32 of unit features: raw influence, or influence if both are centred."""
    queries = query_features.astype(np.float32)
    return queries @ candidate_features.astype(np.float32).T


def ranks(matrix: np.ndarray) -> np.ndarray:
    """Rank (Q, N) int32 of each candidate for each query; 0 is the most influential.

    Equal influences are ranked by position, so candidates ordered by id break ties by id.
    """
    order = np.argsort(-matrix, axis=1, kind="stable")
    result = np.empty_like(order, dtype=np.int32)
    np.put_along_axis(result, order, np.arange(matrix.shape[1], dtype=np.int32)[None, :], axis=1)
    return result


def normalise_prompt(prompt: str) -> str:
    """A prompt without case, punctuation and spacing, in NFKC: the unit of splitting."""
    folded = unicodedata.normalize("NFKC", prompt).casefold()
    return " ".join(re.findall(r"\w+", folded))


def split_of(prompt: str, seed: int, validation: float, test: float) -> Split:
    """Split of a prompt: a hash of the normalised text, so that it never changes.

    Samples with one prompt share a split, whatever shard they come from.
    """
    key = fingerprint.draw_key(seed, f"split {normalise_prompt(prompt)}") / 2**64
    if key < test:
        return "test"
    return "validation" if key < test + validation else "train"


def splits(prompts: Sequence[str], seed: int, validation: float, test: float) -> list[Split | None]:
    """Split of every prompt; None for a train one that is a near-duplicate of a held-out one.

    Validation prompts near a test prompt become None as well.
    """
    assigned = np.array([split_of(prompt, seed, validation, test) for prompt in prompts])
    near = np.zeros(len(prompts), dtype=bool)
    for split, held_out in (("train", ("validation", "test")), ("validation", ("test",))):
        own = np.flatnonzero(assigned == split).tolist()
        others = np.flatnonzero(np.isin(assigned, held_out)).tolist()
        near[own] = near_duplicates([prompts[i] for i in own], [prompts[i] for i in others])
    return [None if out else split for split, out in zip(assigned.tolist(), near, strict=True)]


def near_duplicates(prompts: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Which prompts (n,) bool are near-duplicates of a known one.

    Near means that the sets of 5-character shingles of the normalised prompts overlap by at least
    0.8 (Jaccard). Only prompts that share one of their rarest shingles can be (prefix filtering,
    Chaudhuri et al. 2006), so few pairs are compared.
    """
    own, others = (
        [_shingles(normalise_prompt(each)) for each in texts] for texts in (prompts, known)
    )
    counts = Counter(chain.from_iterable(others))
    holders: dict[str, list[int]] = defaultdict(list)
    for row, shingles in enumerate(others):
        for shingle in _rarest(shingles, counts):
            holders[shingle].append(row)
    near = np.zeros(len(own), dtype=bool)
    for row, shingles in enumerate(own):
        found = {at for each in _rarest(shingles, counts) for at in holders.get(each, ())}
        near[row] = any(_jaccard(shingles, others[at]) >= _NEAR for at in found)
    return near


def _rarest(shingles: frozenset[str], counts: Counter[str]) -> list[str]:
    """So many of the rarest that a set with none of them in its own shares too few of the rest."""
    # Rounding may not leave one out.
    common = math.ceil(_NEAR * len(shingles) - 1e-9)
    ordered = sorted(sorted(shingles), key=counts.__getitem__)
    return ordered[: len(shingles) - common + 1]


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1)))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    small, large = sorted((len(left), len(right)))
    if small < _NEAR * large:
        return 0.0
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
