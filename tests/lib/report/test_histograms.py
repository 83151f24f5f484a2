"""Histograms by label: what is counted, how they add up, and how many labels keep their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.report import histograms
from influcoder_lib.report.groups import OTHERS, null_last
from influcoder_lib.report.histograms import MOST_LABELS, add_histograms, count_histograms
from influcoder_lib.report.layout import BIN_EDGES
from influcoder_lib.report.model import LabelHistogram
from influcoder_lib.report.pictures import MAX_LABELS, _pooled_labels

# Few distinct values, on the bins' edges and past the ends by a rounding.
SAMPLES = st.lists(
    st.tuples(
        st.none() | st.sampled_from("abcdefg"),
        st.sampled_from([-1.000001, -1.0, -0.02, 0.0, 0.01, 0.02, 0.98, 1.0, 1.000001]),
    ),
    max_size=30,
)


def count(samples):
    labels, scores = [label for label, _ in samples], np.array([score for _, score in samples])
    return count_histograms(labels, scores, scores > 0.01)


def slow(samples):
    """The histograms by label, each made by itself."""
    found = []
    for name in sorted({label for label, _ in samples}, key=null_last):
        scores = np.array([score for label, score in samples if label == name])
        counts = np.histogram(scores.clip(-1, 1), bins=BIN_EDGES)[0].tolist()
        found.append({"label": name, "beyond": int((scores > 0.01).sum()), "counts": counts})
    return found


@given(SAMPLES, st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_they_count_as_one_by_one_and_parts_add_up_to_the_whole(samples, cut):
    assert count(samples) == slow(samples)
    assert add_histograms([*count(samples[:cut]), *count(samples[cut:])]) == slow(samples)


@given(SAMPLES, SAMPLES, st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_of_many_labels_the_largest_keep_their_own_and_no_sample_is_lost(first, second, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histograms, "MOST_LABELS", most)
        part = count(first)
        found = add_histograms([*part, *count(second)])
    truth = {row["label"]: row for row in slow([*first, *second])}
    rows = {row["label"]: sum(row["counts"]) for row in part if row["label"] != OTHERS}
    assert sorted(rows.values()) == sorted(sum(row["counts"]) for row in slow(first))[-most:]
    for of in (lambda row: row["beyond"], lambda row: sum(row["counts"])):
        assert sum(map(of, found)) == sum(map(of, truth.values()))
        for row in found:
            assert row["label"] == OTHERS or of(row) <= of(truth[row["label"]])
    assert len(found) <= most + 1
    if len(truth) <= most:
        assert found == list(truth.values())


def test_a_label_for_every_sample_takes_no_room_to_speak_of():
    found = count([(f"{number:04}", 0.5) for number in range(10 * MOST_LABELS)])
    assert len(found) == MOST_LABELS + 1
    assert [row["label"] for row in found] == [
        OTHERS,
        *(f"{number:04}" for number in range(MOST_LABELS)),
    ]


def test_the_others_are_never_shown_as_a_label():
    shown = _pooled_labels(
        [LabelHistogram(OTHERS, (900,), 0), *(LabelHistogram(n, (1,), 0) for n in "abcdefgh")]
    )
    assert [part.label for part in shown] == [*"abcde", "all other labels"]
    assert len(shown) == MAX_LABELS
    assert shown[-1].rows == 903
