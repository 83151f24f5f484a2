"""Surface features of a text: how it is set, not what it says.

Gradients depend on them more than on meaning: a list, a number, a capital or a full stop at the end
costs the target model as much as a thought, and no encoder of meaning tells them.
"""

import numpy as np

_COUNTED = ("\n", "\n\n", ".", ",", "-", '"')
_SHARE = 2.0

NUMBERS = 2 * (5 + len(_COUNTED)) + 4
"""How many features a text has."""


def surface_features(text: str) -> np.ndarray:
    """Features (NUMBERS,) float32 of one text.

    Of characters, words, different words, capitals, digits, and some marks: log(1 + count), then
    the square root of the count a character, doubled; then, each 0 or 1, whether the text starts
    with a capital or a digit, and ends with a full stop or a letter or digit.
    """
    words = text.split()
    counts = [
        len(text),
        len(words),
        len(set(words)),
        sum(map(str.isupper, text)),
        sum(map(str.isdigit, text)),
        *map(text.count, _COUNTED),
    ]
    edges = [
        text[:1].isupper(),
        text[:1].isdigit(),
        text.endswith("."),
        text[-1:].isalnum(),
    ]
    found = np.array(counts, dtype=np.float32)
    shares = _SHARE * np.sqrt(found / max(len(text), 1))
    return np.concatenate([np.log1p(found), shares, np.array(edges, dtype=np.float32)])
