"""How figures are written, in the same words for both renderers: tiles, shares, rules, cells."""

from dataclasses import dataclass

from influcoder_lib.curation.decisions import Rule
from influcoder_lib.report.model import BehaviorReport, Cell, Measured, Report, Table, share

NOT_APPLICABLE = "—"


@dataclass(frozen=True)
class Tile:
    """One key figure: its name, its value and a few words that put it in place."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class WrittenCell:
    """A table's cell as it is read; `best` marks the best figure of its column."""

    text: str
    best: bool
    numeric: bool


def count(number: int | None) -> str:
    return NOT_APPLICABLE if number is None else f"{number:,}"


def percent(part: float | None) -> str:
    if part is None:
        return NOT_APPLICABLE
    digits = 0 if part in (0, 1) else 2 if part < 0.001 or part > 0.999 else 1
    return f"{100 * part:.{digits}f} %"


def score(number: float | None) -> str:
    return NOT_APPLICABLE if number is None else f"{number:.4f}"


def label(name: str | None) -> str:
    return "(none)" if name is None else name


def rule_name(rule: str | None) -> str:
    """Who dropped a row; a row without a rule was dropped because no wanted behavior claims it."""
    return "no wanted behavior reaches its threshold" if rule is None else rule


def tiles(report: Report) -> list[Tile]:
    """The report's key figures, most important first."""
    total, cut = report.total, report.truncation
    valid = total.kept + total.dropped
    measured = f"of {count(cut.teacher_measured)} measured"
    return [
        Tile("rows in", count(total.rows_in), _plural(len(report.by_shard), "shard")),
        Tile("kept", count(total.kept), f"{percent(share(total.kept, valid))} of valid samples"),
        Tile(
            "dropped",
            count(total.dropped),
            f"{percent(total.dropped_share)} of valid samples",
        ),
        Tile(
            "quarantined",
            count(total.quarantined),
            f"{percent(share(total.quarantined or 0, total.rows_in))} of rows in",
        ),
        Tile(
            "truncated, encoder",
            percent(share(cut.encoder, cut.encoder_measured)),
            f"{count(cut.encoder)} of {_plural(cut.encoder_measured, 'sample')}",
        ),
        Tile(
            "truncated, teacher",
            percent(share(cut.teacher, cut.teacher_measured)),
            f"{count(cut.teacher)} {measured}",
        ),
    ]


def behavior_tiles(behavior: BehaviorReport) -> list[Tile]:
    """A behavior's key figures: its threshold, and what was asked for against what came out."""
    rule = behavior.rule
    verb = "dropped" if rule.kind == "unwanted" else "kept"
    side = "above" if rule.kind == "unwanted" else "at or above"
    reached = f"{count(behavior.beyond)} of {_plural(behavior.rows, 'sample')} {side} the threshold"
    spread = f"{score(behavior.lowest)} to {score(behavior.highest)}"
    return [
        Tile("threshold", score(rule.threshold), f"on the {rule.statistic} over the queries"),
        Tile(f"asked to be {verb}", _asked(rule), rule_in_words(rule)),
        Tile("reached by the rule", percent(behavior.actual_share), reached),
        Tile("scores", spread, f"calibrated on {_plural(rule.calibration_rows, 'sample')}"),
    ]


def rule_in_words(rule: Rule) -> str:
    """What a rule was asked to do, e.g. "drop the highest 5.0 % of the calibration set"."""
    if rule.method == "false_drop_rate":
        good = _plural(rule.known_good_rows, "known-good sample")
        return f"drop at most {percent(rule.value)} of good samples in expectation ({good})"
    verb = "drop" if rule.kind == "unwanted" else "keep"
    if rule.method == "fraction":
        return f"{verb} the highest {percent(rule.value)} of the calibration set"
    return f"{verb} {'above' if rule.kind == 'unwanted' else 'at or above'} a set threshold"


def _asked(rule: Rule) -> str:
    if rule.method == "threshold":
        return NOT_APPLICABLE
    return percent(rule.value) if rule.method == "fraction" else f"≤ {percent(rule.value)}"


def written_rows(table: Table) -> list[list[WrittenCell]]:
    """A table's cells as they are read, with the best of each column of figures marked.

    Figures that read the same are equally good; a lone figure is not marked.
    """
    best = [_best(table, column) for column in range(len(table.columns))]
    return [
        [
            WrittenCell(
                _write(cell),
                _figure(cell) is not None and _figure(cell) == best[i],
                isinstance(cell, int | float | Measured),
            )
            for i, cell in enumerate(row)
        ]
        for row in table.rows
    ]


def _best(table: Table, column: int) -> float | None:
    figures = [figure for row in table.rows if (figure := _figure(row[column])) is not None]
    if len(figures) < 2:
        return None
    return min(figures) if table.columns[column] in table.lower_is_better else max(figures)


def _figure(cell: Cell) -> float | None:
    """The number that competes for the best, rounded as it is read; None for what does not."""
    number = cell.mean if isinstance(cell, Measured) else cell
    return round(number, 3) if isinstance(number, float) else None


def _write(cell: Cell) -> str:
    if cell is None:
        return NOT_APPLICABLE
    if isinstance(cell, Measured):
        return f"{cell.mean:.3f} ± {cell.spread:.3f}"
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
