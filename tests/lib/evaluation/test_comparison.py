"""Where the encoder wins and loses, by tables made by hand."""

import numpy as np
import pytest

from influcoder_lib.evaluation.comparison import (
    ENCODER,
    Predictor,
    headline,
    retrieval_table,
)
from influcoder_lib.report.model import Measured

LABELS = ["unsafe", "unsafe", "safe", "benign", None]
FOUND = np.array([[0.9, 0.8, 0.1, 0.2, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
MISSED = np.array([[0.1, 0.2, 0.9, 0.3, 0.4]], dtype=np.float32)


def table(encoder, length, labels=LABELS):
    given = [Predictor(ENCODER, encoder), Predictor("response length", length)]
    return retrieval_table("Finding", given, labels, "unsafe", "safe", "max")


def test_a_label_is_found_among_all_and_among_the_hard_ones_alone():
    found = table([FOUND], [MISSED])
    assert found.columns[1:] == ["AUPRC, unsafe against all", "AUPRC, unsafe against safe"]
    prevalence, encoder, length = found.rows
    assert prevalence[1:] == pytest.approx([2 / 5, 2 / 3])
    assert encoder[1:] == [1.0, 1.0]
    # The two come last: at rank 4 and 5 of all, at 2 and 3 of the hard ones and themselves.
    assert length[1:] == pytest.approx([(1 / 4 + 2 / 5) / 2, (1 / 2 + 2 / 3) / 2])
    assert "in all 2 comparisons" in headline([found])


def test_seeds_are_shown_by_mean_and_spread():
    assert table([FOUND, FOUND], [FOUND]).rows[1][1] == Measured(1.0, 0.0)


def test_a_loss_is_named():
    said = headline([table([MISSED], [FOUND])])
    assert "loses 2 of 2 comparisons to something cheaper. First: Finding, AUPRC, unsafe" in said
    assert "response length 1.000" in said


def test_a_tie_is_neither_won_nor_lost():
    equal = table([FOUND], [FOUND])
    assert headline([equal]).endswith("it wins 0 of 2 comparisons, and ties in 2.")
    assert headline([equal, table([FOUND], [MISSED])]).endswith(
        "it wins 2 of 4 comparisons, and ties in 2."
    )
    said = headline([equal, table([MISSED], [FOUND])])
    assert "it loses 2 of 4 comparisons to something cheaper, and ties in 2. First: " in said


def test_without_a_hard_one_nothing_is_compared_with_them():
    found = table([FOUND], [MISSED], ["unsafe", "unsafe", "benign", "benign", None])
    assert found.columns[1:] == ["AUPRC, unsafe against all"]
    assert "in all 1 comparisons" in headline([found])
