"""Influence matrices and the splits they are judged on."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from influcoder_lib import fingerprint

Split = Literal["train", "validation", "test"]
_SPLIT_CODE = {"train": 0, "validation": 1, "test": 2}
_SHINGLE = 5
_NEAR = 0.8


def centring_mean(candidate_features: np.ndarray) -> np.ndarray:
    """Mean (D,) float32 of the train candidates' unit features (n, D)."""
    return candidate_features.astype(np.float32).mean(axis=0)


def centre(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit features (n, D) float32 after the mean (D,) is subtracted (METHOD.md, section 2)."""
    moved = features.astype(np.float32) - mean
    norms = np.linalg.norm(moved, axis=1, keepdims=True)
    return moved / np.where(norms > 0, norms, 1.0)


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

    Near means that the sets of 5-character shingles of the normalised prompts overlap by at least
    0.8 (Jaccard). Validation prompts near a test prompt become None as well.
    """
    assigned = [split_of(prompt, seed, validation, test) for prompt in prompts]
    shingles = [_shingles(normalise_prompt(prompt)) for prompt in prompts]
    result: list[Split | None] = []
    for split, own in zip(assigned, shingles, strict=True):
        held_out = (
            other
            for other_split, other in zip(assigned, shingles, strict=True)
            if _SPLIT_CODE[other_split] > _SPLIT_CODE[split]
        )
        result.append(None if any(_jaccard(own, other) >= _NEAR for other in held_out) else split)
    return result


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1)))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    small, large = sorted((len(left), len(right)))
    if small < _NEAR * large:
        return 0.0
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
