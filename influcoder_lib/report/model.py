"""The report as one frozen model: everything that both renderers show, and nothing they decide.

`merging` builds it; `threshold_curves` says what another threshold would have dropped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influcoder_lib.curation.rules import Rule
from influcoder_lib.report.changes import Changes
from influcoder_lib.report.standing import Standing


@dataclass(frozen=True)
class Measured:
    """A figure with its spread over repetitions (sample standard deviation over seeds)."""

    mean: float
    spread: float


Cell = str | float | Measured | None


@dataclass(frozen=True)
class Table:
    """A table of the report: one list of cells a row, in the order of `columns`.

    Floats and `Measured` compete for the best of their column, the highest unless the column is
    in `lower_is_better`; texts and ints do not. None reads "not applicable".

    Raises:
        ValueError: a row has another length than `columns`, or a number is not finite.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    lower_is_better: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table {self.title!r}: {len(row)} cells, {len(self.columns)} columns: {row!r}"
                )
            for cell in row:
                parts = (cell.mean, cell.spread) if isinstance(cell, Measured) else (cell,)
                if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
                    raise ValueError(f"Table {self.title!r} holds a number that is not finite")


def read_table(stored: Mapping[str, Any]) -> Table:
    """A table from its `dataclasses.asdict`, as it comes back from JSON."""
    rows = [
        [Measured(**cell) if isinstance(cell, dict) else cell for cell in row]
        for row in stored["rows"]
    ]
    return Table(**{**stored, "rows": rows})


@dataclass(frozen=True)
class FunnelRow:
    """Rows of one shard or group; what a group's rows lost to quarantine is not known."""

    name: str | None
    kept: int
    dropped: int
    quarantined: int | None

    @property
    def rows_in(self) -> int:
        return self.kept + self.dropped + (self.quarantined or 0)

    @property
    def dropped_share(self) -> float | None:
        """Dropped rows among the valid ones; None without valid rows."""
        return share(self.dropped, self.kept + self.dropped)


@dataclass(frozen=True)
class Uncounted:
    """A label with an unknown number of samples: some, or all, are among those of a corpus with too
    many labels to count each."""

    name: str


@dataclass(frozen=True)
class DropReason:
    """How many rows one rule (or the reviewer) dropped, and for which behavior."""

    rule: str | None
    behavior: str | None
    rows: int


@dataclass(frozen=True)
class ListedQuery:
    """The query that a listed sample is closest to; texts are excerpts."""

    sample_id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class ListedSample:
    """A sample shown in the report; texts are excerpts."""

    sample_id: str
    file: str
    row: int
    label: str | None
    decision: str
    reason: str | None
    score: float
    percentile: float
    prompt: str
    response: str
    best_query: ListedQuery


@dataclass(frozen=True)
class LabelHistogram:
    """Scores of one label's samples: a count for each bin of BIN_EDGES, and the exact number
    past the threshold."""

    label: str | None
    counts: tuple[int, ...]
    beyond: int

    @property
    def rows(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class BehaviorReport:
    """One behavior over the whole corpus; `above` and `below` hold the samples nearest the cut.

    `positive` and `hard_negative` count the samples with the behavior's labels, if it has such.
    """

    rule: Rule
    queries: int
    positive: FunnelRow | Uncounted | None
    hard_negative: FunnelRow | Uncounted | None
    rows: int
    lowest: float | None
    highest: float | None
    histograms: tuple[LabelHistogram, ...]
    top: tuple[ListedSample, ...]
    above: tuple[ListedSample, ...]
    below: tuple[ListedSample, ...]

    @property
    def name(self) -> str:
        return self.rule.behavior

    @property
    def beyond(self) -> int:
        """Samples past the threshold, whatever a reviewer or another rule then decided."""
        return sum(part.beyond for part in self.histograms)

    @property
    def asked_share(self) -> float | None:
        """The share that the rule was asked to drop (unwanted) or keep (wanted), if it was."""
        return self.rule.value if self.rule.method == "fraction" else None

    @property
    def actual_share(self) -> float | None:
        """The share of the corpus past the threshold; None for an empty corpus."""
        return share(self.beyond, self.rows)


@dataclass(frozen=True)
class Truncation:
    """Rows whose text was cut to fit: the encoder's of all, the teacher's of those it measured."""

    encoder: int
    encoder_measured: int
    teacher: int
    teacher_measured: int


@dataclass(frozen=True)
class Report:
    """What was dropped, why, and what it cost in good data.

    `changes` is None for the first report. Groups come largest first, lengths shortest first.
    """

    title: str
    created: str
    versions: Mapping[str, str]
    headline: str
    warnings: tuple[str, ...]
    total: FunnelRow
    by_shard: tuple[FunnelRow, ...]
    by_label: tuple[FunnelRow, ...]
    by_source: tuple[FunnelRow, ...]
    by_length: tuple[FunnelRow, ...]
    by_script: tuple[FunnelRow, ...]
    drop_reasons: tuple[DropReason, ...]
    behaviors: tuple[BehaviorReport, ...]
    quarantine: Mapping[str, int]
    truncation: Truncation
    tables: tuple[Table, ...]
    standing: Standing
    changes: Changes | None


@dataclass(frozen=True)
class ThresholdCurve:
    """Share of the samples of one label (or of all: "all samples") that a rule would drop at each
    threshold of BIN_EDGES; exact but for samples that lie on a threshold to the last digit."""

    label: str | None
    shares: np.ndarray


def threshold_curves(behavior: BehaviorReport) -> list[ThresholdCurve]:
    """What each threshold would drop: first of all samples, then of each label's.

    Unwanted rules drop what lies above the threshold, wanted ones what lies below it. Labels
    without a sample have no curve.
    """
    counted = [part for part in behavior.histograms if part.rows]
    if not counted:
        return []
    everything = np.sum([part.counts for part in counted], axis=0)
    groups: list[tuple[str | None, np.ndarray]] = [("all samples", everything)]
    if len(counted) > 1:
        groups += [(part.label, np.array(part.counts)) for part in counted]
    return [ThresholdCurve(label, _dropped_shares(counts, behavior)) for label, counts in groups]


def share(part: int, whole: int) -> float | None:
    """part / whole; None where there is nothing to be a part of."""
    return part / whole if whole else None


def _dropped_shares(counts: np.ndarray, behavior: BehaviorReport) -> np.ndarray:
    below = np.concatenate([[0], np.cumsum(counts)])
    dropped = below[-1] - below if behavior.rule.kind == "unwanted" else below
    return np.asarray(dropped / below[-1])
