"""Who is in the comparison: every cheap predictor that can be had, the encoder with and without."""

import numpy as np
import pytest

from influcoder_lib.evaluation.held_out import Block, Contenders
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
