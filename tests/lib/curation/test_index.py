"""Segments: what is written is read back, and a search through them is one through all vectors."""

from pathlib import Path

import numpy as np
import pytest

from influcoder_lib.curation import index
from influcoder_lib.curation.index import CODES, VECTORS, Segments
from influcoder_lib.vectors import unit_rows


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)
    return unit_rows(vectors)


def segment(folder: Path, *blocks: np.ndarray) -> tuple[Path, Path]:
    folder.mkdir()
    assert index.write_segment(map(index.narrow, blocks), folder) == sum(map(len, blocks))
    return folder / VECTORS, folder / CODES


@pytest.mark.parametrize("width", [384, 32, 30, 7])
def test_vectors_are_read_back_to_float16_and_as_unit_vectors(tmp_path, width):
    vectors = unit(13, width, 0)
    stored, _ = segment(tmp_path / "s", vectors[:5], vectors[5:5], vectors[5:])
    found = np.array([index.read_vector(stored, row) for row in range(13)])
    np.testing.assert_allclose(found, vectors, atol=5e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    blocks = list(index.read_blocks(stored, 4))
    assert [len(block) for block in blocks] == [4, 4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), found)


def test_the_blocks_that_a_segment_came_in_do_not_change_its_bytes(tmp_path):
    vectors = unit(9, 16, 0)
    one, other = segment(tmp_path / "a", vectors), segment(tmp_path / "b", vectors[:2], vectors[2:])
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_an_empty_segment_keeps_its_width_and_is_one_empty_block(tmp_path):
    empty = segment(tmp_path / "empty", unit(0, 16, 0))
    assert [block.shape for block in index.read_blocks(empty[0], 4)] == [(0, 16)]
    assert len(Segments([empty])) == 0
    assert len(Segments([empty]).nearest(unit(1, 16, 1)[0], 3).rows) == 0
    both = Segments([empty, segment(tmp_path / "full", unit(3, 16, 0)), empty])
    assert both.nearest(unit(3, 16, 0)[1], 1).rows.tolist() == [1]


@pytest.mark.parametrize("width", [64, 7])
def test_a_few_thousand_vectors_in_segments_are_searched_exactly(tmp_path, width):
    vectors = unit(1900, width, 0)
    parts = np.split(vectors, [1, 700, 701])
    paths = [segment(tmp_path / str(i), part) for i, part in enumerate(parts)]
    segments = Segments(paths)
    vectors = np.concatenate([next(index.read_blocks(stored, 1900)) for stored, _ in paths])
    for query in unit(5, width, 1):
        found = segments.nearest(query, 10)
        np.testing.assert_array_equal(found.rows, np.argsort(-(vectors @ query))[:10])
        np.testing.assert_allclose(found.cosines, vectors[found.rows] @ query, atol=1e-6)


@pytest.mark.parametrize("top", [10, 2_000])
def test_of_many_vectors_nearly_all_of_the_nearest_are_found(tmp_path, top):
    vectors = unit(30_000, 32, 0)
    segments = Segments([segment(tmp_path / "s", vectors)])
    queries = unit(20, 32, 1)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :top]
    found = [segments.nearest(query, top).rows for query in queries]
    hits = [len(set(a) & set(b)) for a, b in zip(truth, found, strict=True)]
    assert np.mean(hits) >= 0.98 * top


def test_equal_cosines_come_in_the_order_of_rows(tmp_path):
    vectors = np.repeat(unit(2, 8, 0), 3, axis=0)
    found = Segments([segment(tmp_path / "s", vectors)]).nearest(vectors[4], 6)
    assert found.rows.tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize("step", [2, 997])
def test_a_search_among_some_rows_finds_the_nearest_of_those(tmp_path, step):
    """Every second row: enough of them are near. Every 997th: all of them have to be looked at."""
    vectors = unit(6000, 16, 0)
    segments = Segments([segment(tmp_path / str(i), p) for i, p in enumerate(np.split(vectors, 3))])
    among = np.arange(1, 6000, step)
    query = unit(1, 16, 1)[0]
    truth = among[np.argsort(-(vectors[among] @ query))[:5]]
    np.testing.assert_array_equal(segments.nearest_among(query, 5, among).rows, truth)
    assert len(segments.nearest_among(query, 5, among[:3]).rows) == 3
    assert len(segments.nearest_among(query, 5, among[:0]).rows) == 0


def test_no_file_of_a_segment_stays_open(tmp_path):
    """A corpus may have more shards than a process may have open files."""
    paths = segment(tmp_path / "s", unit(3, 8, 0))
    before = len(list(Path("/dev/fd").iterdir()))
    segments = Segments([paths] * 20)
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert segments.nearest(unit(3, 8, 0)[2], 1).rows.tolist() == [2]
