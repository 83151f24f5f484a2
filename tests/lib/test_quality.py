"""Checks can fail: what they are there to find is found."""

import numpy as np
import pytest

from influcoder_lib import quality
from influcoder_lib.curation import index


def lengths(folder, vectors: np.ndarray) -> np.ndarray:
    index.write_segment([index.narrow(vectors)], folder)
    return index.lengths(folder / index.VECTORS)


def unit(rows: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((rows, 24), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_unit_vectors_stay_unit_vectors_when_they_are_stored(tmp_path):
    found = quality.embeddings_sound(lengths(tmp_path, unit(500)), 500)
    assert found.passed
    assert "500 vectors for 500 samples; 0 are" in found.message


@pytest.mark.parametrize("factor", [0.0, 0.998, 1.002, np.nan, np.inf])
def test_a_stored_vector_of_another_length_is_found(tmp_path, factor):
    vectors = unit(9)
    vectors[4] *= factor
    found = quality.embeddings_sound(lengths(tmp_path, vectors), 9)
    assert not found.passed
    assert found.figures["bad"] == 1


def test_a_missing_vector_is_found(tmp_path):
    assert not quality.embeddings_sound(lengths(tmp_path, unit(8)), 9).passed


def test_an_empty_shard_is_sound(tmp_path):
    assert quality.embeddings_sound(lengths(tmp_path, unit(0)), 0).passed
