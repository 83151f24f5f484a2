"""Tables of scores: blocks and scores of before change nothing, and rows stay beside their own."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from influcoder_lib.curation.score_table import QueryVectors, Scorer, beside, score_table
from influcoder_lib.errors import StoreError
from influcoder_lib.fingerprint import of_text
from influcoder_lib.vectors import unit_rows

IDS = [of_text(str(number)) for number in range(30)]


def unit(seed: int, rows: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return unit_rows(vectors)


VECTORS = unit(0, len(IDS))
QUERIES = {name: QueryVectors(["q", "r", "s"], unit(seed, 3)) for seed, name in enumerate("ab", 1)}
CALIBRATION = score_table(IDS[:9], unit(3, 9), QUERIES)
NONE = pl.DataFrame(schema={"sample_id": pl.String})


def scored(scorer: Scorer, rows: list[int]) -> pl.DataFrame:
    return scorer.score(pl.Series([IDS[row] for row in rows], dtype=pl.String), VECTORS[rows])


def scorer(before: pl.DataFrame = NONE) -> Scorer:
    return Scorer(QUERIES, CALIBRATION, "e1", before)


def test_the_best_query_is_named_by_its_id():
    table = scored(scorer(), list(range(30)))
    for row, name in ((row, name) for row in range(30) for name in "ab"):
        cosines = QUERIES[name].vectors @ VECTORS[row]
        assert table[f"{name}_best_query"][row] == "qrs"[int(cosines.argmax())]
        assert table[f"{name}_max"][row] == pytest.approx(cosines.max(), abs=1e-6)
    assert table["encoder"].unique().to_list() == ["e1"]


@given(st.lists(st.integers(0, 29), unique=True), st.permutations(range(30)), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_scores_of_before_are_taken_over_and_the_rest_is_computed(known, order, size):
    whole = scored(scorer(), order)
    # Marked, so that it shows whether a score was taken over or computed again.
    before = scored(scorer(), known).with_columns(pl.col("a_mean") + 2)
    expected = whole.with_columns(
        pl.when(pl.col("sample_id").is_in([IDS[row] for row in known]))
        .then(pl.col("a_mean") + 2)
        .otherwise("a_mean")
    )
    again = scorer(before)
    found = pl.concat(
        scored(again, order[start : start + size]) for start in range(0, len(order), size)
    )
    assert_frame_equal(found, expected, check_exact=True)
    assert again.scored == 30 - len(known)


def test_an_empty_block_has_the_columns_of_any():
    assert scored(scorer(), []).schema == scored(scorer(), [3]).schema


def test_samples_stand_beside_their_own_scores_or_not_at_all():
    samples = pl.DataFrame({"sample_id": IDS[:3], "file": ["f"] * 3})
    table = scored(scorer(), [0, 1, 2])
    assert beside(samples, table).columns == [*samples.columns, *table.columns[1:]]
    for other in (table.reverse(), table.head(2)):
        with pytest.raises(StoreError, match="not those of its samples"):
            beside(samples, other)
