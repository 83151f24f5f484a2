"""Surface features of a text: how it is set, not what it says.

Gradients depend on them more than on meaning: a list, a number, a capital or a full stop at the end
costs the target model as much as a thought, and no encoder of meaning tells them.
"""

from collections.abc import Sequence

import numpy as np

from influcoder_lib.samples import Sample

_COUNTED = ("\n", "\n\n", ".", ",", "-", '"')
_CAPITALS, _DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789"
_SHARE = 2.0
_COUNTS, _EDGES = 5 + len(_COUNTED), 4

NUMBERS = 2 * _COUNTS + _EDGES
"""How many features a text has."""


def sample_surfaces(samples: Sequence[Sample]) -> np.ndarray:
    """Features (n, 2 NUMBERS) float32 of samples: the prompt's, then the response's."""
    prompts = surface_features([each.prompt for each in samples])
    responses = surface_features([each.response for each in samples])
    return np.concatenate([prompts, responses], axis=1)


def surface_features(texts: Sequence[str]) -> np.ndarray:
    """Features (n, NUMBERS) float32 of texts.

    Of characters, words, different words, capitals, digits, and some marks: log(1 + count), then
    the square root of the count a character, doubled; then, each 0 or 1, whether the text starts
    with a capital or a digit, and ends with a full stop or a letter or digit.
    """
    found = np.array([_counts(text) + _edges(text) for text in texts], dtype=np.float32)
    counts, edges = np.split(found.reshape(-1, _COUNTS + _EDGES), [_COUNTS], axis=1)
    shares = _SHARE * np.sqrt(counts / counts[:, :1].clip(min=1))
    return np.concatenate([np.log1p(counts), shares, edges], axis=1)


def _counts(text: str) -> list[int]:
    words = text.split()
    # Counting in bytes, which nearly all characters are, is many times as fast.
    plain = text.encode("ascii", "ignore")
    others = [] if len(plain) == len(text) else [each for each in text if not each.isascii()]
    return [
        len(text),
        len(words),
        len(set(words)),
        len(plain) - len(plain.translate(None, _CAPITALS)) + sum(map(str.isupper, others)),
        len(plain) - len(plain.translate(None, _DIGITS)) + sum(map(str.isdigit, others)),
        *map(text.count, _COUNTED),
    ]


def _edges(text: str) -> list[int]:
    return [
        text[:1].isupper(),
        text[:1].isdigit(),
        text.endswith("."),
        text[-1:].isalnum(),
    ]
