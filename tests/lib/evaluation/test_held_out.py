"""Who is in the comparison: every cheap predictor that can be had, the encoder with and without."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.evaluation.held_out import Block, Contenders, labelled_draw
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.samples import Sample

SAMPLES = [
    Sample(sample_id(p, r), p, r) for p, r in (("a?", "No."), ("bc", "Yes, it is 3."), ("d", "\n"))
]


class Vowels:
    """An encoder; a share of resemblance turns its queries if `mixes`."""

    def __init__(self, mixes: bool) -> None:
        self.mixes = mixes

    def encode(self, samples):
        return np.array([[1.0, len(each.response)] for each in samples])

    def encode_queries(self, samples, resemblance=0.0):
        turned = resemblance if self.mixes else 0.0
        return self.encode(samples) @ np.array([[1 - turned, -turned], [turned, 1 - turned]])


def names(queries: int, mixes: bool, resemblance: float) -> list[str]:
    train = Block(SAMPLES[:queries], SAMPLES, np.eye(3)[:queries])
    contenders = Contenders(train, Vowels(False), [Vowels(mixes)])
    return [each.name for each in contenders.predictors(SAMPLES, SAMPLES, resemblance)]


@pytest.mark.parametrize(("mixes", "resemblance"), [(True, 0.0), (False, 0.5)])
def test_influence_alone_has_no_row_where_resemblance_changes_nothing(mixes, resemblance):
    assert names(2, mixes, resemblance) == [
        "response length",
        "length map",
        "surface map",
        "BM25",
        "untrained encoder",
        "influence encoder",
    ]


def test_influence_alone_stands_before_the_encoder_that_decisions_use():
    assert names(2, True, 0.5)[-2:] == ["the same, influence alone", "influence encoder"]


def test_one_query_is_too_little_for_a_surface_map():
    assert "surface map" not in names(1, False, 0.0)


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["unsafe", "benign", None]))),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    count=st.integers(0, 12),
)
def test_labelled_samples_drawn_block_by_block_are_those_drawn_from_all(rows, cuts, count):
    """So that a corpus need not be in memory."""
    samples = pl.DataFrame(
        [(f"{number:032x}", label) for number, label in rows],
        schema={"sample_id": pl.String, "label": pl.String},
        orient="row",
    )
    bounds = [0, *sorted(cuts), len(samples)]
    drawn = samples.clear()
    for start, end in pairwise(bounds):
        drawn = labelled_draw(pl.concat([drawn, samples[start : max(start, end)]]), count)
    assert drawn.equals(labelled_draw(samples, count))
    assert len(drawn) == min(count, samples.drop_nulls()["sample_id"].n_unique())
