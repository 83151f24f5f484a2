"""Rows of numbers that are compared by their cosines: how they get unit length, and how exactly
their cosines are told apart."""

import numpy as np

COSINE_DECIMALS = 6
"""Cosines are rounded to so many decimals before they are ranked or shown: far below any difference
that means something, far above the rounding error of a product, so that what a sample's neighbours
in a batch are practically never moves one."""


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) of floats, in their dtype, each divided by its Euclidean length; zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
