"""The honest comparison: the trained encoder against what costs less, on data it did not see.

Two kinds of tables: fidelity on test queries and test candidates, and, where the corpus has labels,
how well each predictor finds a behavior's samples. Trained predictors are given as one score
matrix a seed and shown as mean and spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from influcoder_lib import metrics
from influcoder_lib.metrics import Fidelity
from influcoder_lib.report.model import Cell, Measured, Table
from influcoder_lib.samples import Sample

ENCODER = "influence encoder"
ALONE = "the same, influence alone"
UNTRAINED = "untrained encoder"
CHEAP = ("response length", "length map", "surface map", "BM25", UNTRAINED)
FIDELITY = ("per query", "aggregated", "per query, length out", "aggregated, length out")


@dataclass(frozen=True)
class Predictor:
    """A name and its scores (Q, N) float32: one matrix, or one a seed."""

    name: str
    scores: Sequence[np.ndarray]


def merit(fidelity: Fidelity) -> float:
    """One number to promote by: the mean of per-query and aggregated fidelity."""
    return (fidelity.per_query + fidelity.aggregated) / 2


def lengths(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Characters of prompts and of responses, each (N,) float64."""
    return (
        np.array([len(sample.prompt) for sample in samples], dtype=float),
        np.array([len(sample.response) for sample in samples], dtype=float),
    )


def fidelity_table(
    predictors: Sequence[Predictor], truth: np.ndarray, candidates: Sequence[Sample], note: str
) -> Table:
    """Spearman correlation with the teacher's influence `truth` (Q, N) float32, plain and with
    length taken out (`metrics.fidelity`).

    Raises:
        DataError: fewer than two candidates, no query, or a score that is not finite.
        ValueError: the shapes do not belong together.
    """
    prompt, response = lengths(candidates)
    rows: list[list[Cell]] = []
    for predictor in predictors:
        found = [metrics.fidelity(each, truth, prompt, response) for each in predictor.scores]
        figures = np.array(
            [
                [f.per_query, f.aggregated, f.per_query_without_length, f.aggregated_without_length]
                for f in found
            ]
        )
        rows.append([predictor.name, *(_cell(column) for column in figures.T)])
    return Table("Fidelity to the teacher", ["predictor", *FIDELITY], rows, note=note)


def retrieval_table(
    title: str,
    predictors: Sequence[Predictor],
    labels: Sequence[str | None],
    positive: str,
    hard_negative: str | None,
    statistic: str,
) -> Table:
    """AUPRC of the positive label against all, and against the hard negatives alone if there are
    any.

    A predictor's score of a candidate is the mean or maximum over the queries.

    Raises:
        DataError: no sample has the positive label.
    """
    is_positive = np.array([label == positive for label in labels])
    groups = {f"{positive} against all": np.ones(len(labels), dtype=bool)}
    if hard_negative is not None:
        is_hard = np.array([label == hard_negative for label in labels])
        if is_hard.any():
            groups[f"{positive} against {hard_negative}"] = is_positive | is_hard
    rows: list[list[Cell]] = [
        ["prevalence", *(float(is_positive[chosen].mean()) for chosen in groups.values())]
    ]
    for predictor in predictors:
        pooled = [_pool(each, statistic) for each in predictor.scores]
        rows.append(
            [
                predictor.name,
                *(
                    _cell([metrics.auprc(is_positive[chosen], each[chosen]) for each in pooled])
                    for chosen in groups.values()
                ),
            ]
        )
    columns = ["predictor", *(f"AUPRC, {name}" for name in groups)]
    note = (
        f"{is_positive.sum()} of {len(labels)} samples are {positive}; none was trained on, "
        "but the queries include those that the encoder and the two maps learnt from. "
        f"Scores are the {statistic} over the behavior's queries, the encoder's with the share of "
        "plain resemblance that decisions use; trained predictors: mean and spread over seeds."
    )
    return Table(title, columns, rows, note=note)


def headline(tables: Sequence[Table]) -> str:
    """The first line of the summary: where the encoder wins, and above all where it does not."""
    lost: list[str] = []
    won = tied = 0
    for table in tables:
        for column, name in enumerate(table.columns[1:], start=1):
            best = _best_cheap(table, column)
            own = _figure(table, ENCODER, column)
            if best is None or own is None:
                continue
            # As they are read: what reads the same is equally good.
            ahead = round(own, 3) - round(best[1], 3)
            won, tied = won + (ahead > 0), tied + (ahead == 0)
            if ahead < 0:
                where = f"{table.title}, {name}"
                lost.append(f"{where}: {best[0]} {best[1]:.3f}, {ENCODER} {own:.3f}")
    of, ties = f"{len(lost) + won + tied} comparisons", f", and ties in {tied}" if tied else ""
    if lost:
        return (
            f"The influence encoder does NOT win everywhere: it loses {len(lost)} of {of} to "
            f"something cheaper{ties}. First: {lost[0]}."
        )
    if tied:
        return f"The influence encoder is NOT better everywhere: it wins {won} of {of}{ties}."
    return (
        f"The influence encoder beats length, surface, BM25 and the untrained encoder in all {of}."
    )


def figures(tables: Sequence[Table]) -> Mapping[str, float]:
    """Every number of the tables by a flat name, for a tracker of metrics."""
    return {
        f"{table.title}/{name}/{row[0]}": value.mean if isinstance(value, Measured) else value
        for table in tables
        for row in table.rows
        for name, value in zip(table.columns[1:], row[1:], strict=True)
        if isinstance(value, Measured | float)
    }


def _best_cheap(table: Table, column: int) -> tuple[str, float] | None:
    found = [(name, _figure(table, name, column)) for name in CHEAP]
    known = [(name, value) for name, value in found if value is not None]
    return max(known, key=lambda pair: pair[1]) if known else None


def _figure(table: Table, name: str, column: int) -> float | None:
    for row in table.rows:
        cell = row[column]
        if row[0] == name and isinstance(cell, Measured | float):
            return cell.mean if isinstance(cell, Measured) else cell
    return None


def _pool(scores: np.ndarray, statistic: str) -> np.ndarray:
    return scores.max(axis=0) if statistic == "max" else scores.mean(axis=0)


def _cell(values: Sequence[float] | np.ndarray) -> Cell:
    mean, spread = metrics.mean_and_spread([float(value) for value in values])
    return Measured(mean, spread) if len(values) > 1 else mean
