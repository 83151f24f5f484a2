"""Histograms of a behavior's scores by label, in the layout of `layout`: counted and added up.

A corpus may have a label for every row, such as a number that somebody rated it with. Of more than
MOST_LABELS labels, those with most samples keep a histogram of their own, and all others are
together in the one named OTHERS. So no sample is lost; a label with a histogram of its own may then
lack what of it was among the others of a part.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from influcoder_lib.report.groups import OTHERS, Json, largest, null_last
from influcoder_lib.report.layout import BIN_EDGES

MOST_LABELS = 100
_BINS = len(BIN_EDGES) - 1


def count_histograms(
    labels: Sequence[str | None], scores: np.ndarray, beyond: np.ndarray
) -> list[Json]:
    """[{label, beyond, counts}] of samples, by label, nulls last.

    Args:
        labels: one a sample.
        scores: their scores (n,), cosines but for rounding.
        beyond: bool (n,), whether each lies past the threshold.
    """
    names, places = _places(labels)
    counts = np.zeros((len(names), _BINS), np.int64)
    # Rounding may carry the cosine of equal vectors past 1; the end bins hold it.
    bins = np.searchsorted(BIN_EDGES, scores.clip(-1, 1), side="right") - 1
    np.add.at(counts, (places, bins.clip(max=_BINS - 1)), 1)
    return _rows(names, np.bincount(places, beyond, len(names)), counts)


def add_histograms(rows: Iterable[Json]) -> list[Json]:
    """The same of what such rows were counted from."""
    rows = list(rows)
    names, places = _places([row["label"] for row in rows])
    counts = np.zeros((len(names), _BINS), np.int64)
    beyond = np.zeros(len(names), np.int64)
    if rows:
        np.add.at(counts, places, [row["counts"] for row in rows])
        np.add.at(beyond, places, [row["beyond"] for row in rows])
    return _rows(names, beyond, counts)


def _places(labels: Sequence[str | None]) -> tuple[list[str | None], np.ndarray]:
    """The different labels, and for each of the given ones its place among them (n,) int64."""
    found: dict[str | None, int] = {}
    places = [found.setdefault(label, len(found)) for label in labels]
    return list(found), np.array(places, np.int64)


def _rows(names: list[str | None], beyond: np.ndarray, counts: np.ndarray) -> list[Json]:
    if len(names) > MOST_LABELS:
        rows = dict(zip(names, counts.sum(axis=1).tolist(), strict=True))
        own = largest(rows, MOST_LABELS)
        names, places = _places([name if name in own else OTHERS for name in names])
        summed = np.zeros((len(names), _BINS), np.int64)
        np.add.at(summed, places, counts)
        beyond, counts = np.bincount(places, beyond, len(names)), summed
    order = sorted(range(len(names)), key=lambda place: null_last(names[place]))
    return [
        {"label": names[each], "beyond": int(beyond[each]), "counts": counts[each].tolist()}
        for each in order
    ]
