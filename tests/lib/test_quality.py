"""Checks can fail: what they are there to find is found."""

import numpy as np
import pytest

from influcoder_lib import quality
from influcoder_lib.curation import index
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.adapters import fresh_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from influcoder_lib.vectors import unit_rows
from tests.tiny import tiny_target


def lengths(folder, vectors: np.ndarray) -> np.ndarray:
    index.write_segment([index.narrow(vectors)], folder)
    return index.lengths(folder / index.VECTORS)


def unit(rows: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((rows, 24), dtype=np.float32)
    return unit_rows(vectors)


def changed(place: int | tuple[int, int], factor: float) -> np.ndarray:
    """Nine unit vectors, one of them or one number multiplied."""
    vectors = unit(9)
    vectors[place] *= factor
    return vectors


@pytest.mark.parametrize(
    ("check", "good", "broken", "told"),
    [
        (quality.counts_add_up, (5, 2, 2, 1), (5, 2, 2, 0), {"rows_in": 5, "quarantined": 0}),
        (quality.ids_unique, (["a", "b", "c"],), (["a", "b", "a"],), {"twice": 1}),
        (quality.no_query_in_corpus, (["q"], ["a"]), (["a", "q"], ["a"]), {"shared": 1}),
        (quality.features_sound, (unit(9),), (changed(4, 0.5),), {"bad": 1}),
        (quality.features_sound, (unit(9),), (changed((4, 3), np.nan),), {"bad": 1}),
        (
            quality.same_vectors,
            (unit(9), unit(9)),
            (unit(9), changed((4, 3), 1 + 1e-6)),
            {"differing": 1},
        ),
        (quality.beats, (0.5, 0.4, ("own", "other")), (0.4, 0.4, ("own", "other")), {"own": 0.4}),
    ],
)
def test_a_check_passes_what_is_sound_and_fails_what_is_broken(check, good, broken, told):
    assert check(*good).passed
    found = check(*broken)
    assert not found.passed
    assert found.figures.items() >= told.items()


class Forgetful(CountSketch):
    """Leaves out one layer of each block, whose gradients are among the largest."""

    def add(self, accumulator, name, gradients):
        if "v_proj" not in name:
            super().add(accumulator, name, gradients)


@pytest.mark.parametrize(("sketch", "passes"), [(CountSketch, True), (Forgetful, False)])
def test_a_sketch_that_leaves_out_layers_is_found(tmp_path, sketch, passes):
    target = load_target(tiny_target(tmp_path, "llama"), "float32")
    layers = fresh_adapter(target.model, 3, 0)
    engine = GradientFeatures(target, layers, sketch(32_768, 0), 64, 256)
    texts = [("what is red?", "the cat."), ("why", "z"), ("one two three", "four five six")]
    samples = [Sample(prompt, prompt, response) for prompt, response in texts]
    found = quality.sketch_error(engine, samples)
    assert found.passed == passes, found.message


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
