"""How figures are written, in the same words for both renderers: tiles, shares, rules, cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import listed
from influcoder_lib.report.changes import Changes
from influcoder_lib.report.model import (
    BehaviorReport,
    Cell,
    Measured,
    Report,
    Table,
    Uncounted,
    share,
)
from influcoder_lib.report.standing import VERDICTS, DistillationGap, MeasuredShard, Standing

NOT_APPLICABLE = "—"
FIRST_REPORT = "This is the first report: there is none to compare it with."
# What is nearly nothing or nearly all is neither.
_NEARLY = {"0.00": "< 0.01", "100.00": "> 99.99"}
MOST_SHARDS = 30
MOST_REASONS = 100
"""Reasons of quarantined rows, most rows first; columns with strange types can have more."""


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


def count(number: int | None) -> str:
    return NOT_APPLICABLE if number is None else f"{number:,}"


def percent(part: float | None) -> str:
    if part is None:
        return NOT_APPLICABLE
    digits = 0 if part in (0, 1) else 2 if part < 0.001 or part > 0.999 else 1
    written = f"{100 * part:.{digits}f}"
    return f"{_NEARLY.get(written, written)} %"


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
        Tile("rows in", count(total.rows_in), plural(len(report.by_shard), "shard")),
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
            f"{count(cut.encoder)} of {plural(cut.encoder_measured, 'sample')}",
        ),
        Tile(
            "truncated, teacher",
            percent(share(cut.teacher, cut.teacher_measured)),
            f"{count(cut.teacher)} {measured}",
        ),
    ]


def behavior_tiles(behavior: BehaviorReport) -> list[Tile]:
    """A behavior's key figures: what it caught and cost, its threshold, and what was asked for
    against what came out."""
    rule = behavior.rule
    side = "above" if rule.kind == "unwanted" else "at or above"
    reached = f"{count(behavior.beyond)} of {plural(behavior.rows, 'sample')} {side} the threshold"
    spread = f"{score(behavior.lowest)} to {score(behavior.highest)}"
    return [
        *_label_tiles(behavior),
        Tile("threshold", score(rule.threshold), f"on the {rule.statistic} over the queries"),
        _asked_tile(rule),
        Tile("reached by the rule", percent(behavior.actual_share), reached),
        Tile("scores", spread, f"calibrated on {plural(rule.calibration_rows, 'sample')}"),
    ]


def change_tiles(changes: Changes) -> list[Tile]:
    """What moved since the last report."""
    of_compared = f"of {plural(changes.compared, 'sample')} that are in both"
    return [
        Tile("newly dropped", count(changes.newly_dropped), of_compared),
        Tile("restored", count(changes.restored), of_compared),
        Tile("new samples", count(changes.new), f"{count(changes.new_dropped)} of them dropped"),
        Tile("samples gone", count(changes.gone), "edited, removed, or moved to another shard"),
        *(
            Tile(
                f"rank correlation, {each.behavior}",
                f"{each.spearman:.3f}",
                f"scores before and now, {'a draw of ' if each.is_draw else ''}"
                f"{plural(each.samples, 'sample')}",
            )
            for each in changes.correlations
        ),
    ]


def unread(changes: Changes) -> str:
    """Which shards could not be compared."""
    shards = plural(len(changes.unread), "shard")
    return (
        f"Not compared, because their earlier decisions are not stored any more: {shards}, "
        f"{listed(changes.unread)}."
    )


def encoder_tiles(standing: Standing) -> list[Tile]:
    """The encoder in use, the latest one if that is another, and what it learnt from."""
    found = [Tile("encoder in use", encoder(standing.in_use), _merit(standing))]
    if not standing.latest_in_use:
        merit = standing.latest_merit
        detail = "not in use" if merit is None else f"{merit:.3f} on the test split, not in use"
        found.append(Tile("latest trained", encoder(standing.latest), detail))
    if standing.fidelity:
        found.append(Tile("fidelity by shard", _verdicts(standing), "see below"))
    return [*found, _gap_tile(standing.gap)]


def encoder(version: str | None) -> str:
    """An encoder by its version in the registry; None is the untrained one."""
    return "the untrained encoder" if version is None else f"version {version}"


def of_trained(
    headline: str, tables: Sequence[Table], in_use: str | None, trained: str
) -> tuple[str, list[Table]]:
    """A comparison of the encoder that was trained last. Where another one is in use (by its
    version, as that of the trained one), headline and tables say so."""
    if in_use == trained:
        return headline, list(tables)
    aside = (
        f"In use is {encoder(in_use)}: the influence encoder of this comparison is version "
        f"{trained}, which is not in use."
    )
    noted = [replace(table, note=f"{aside} {table.note}".strip()) for table in tables]
    return f"{aside} {headline}", noted


def fidelity_table(standing: Standing) -> Table | None:
    """Fidelity on each shard's draw, worst first; None where nothing was measured."""
    if not standing.fidelity:
        return None
    columns = ("shard", "verdict", "fidelity", "95 % interval", "expected", "queries", "candidates")
    shown, left = standing.fidelity[:MOST_SHARDS], len(standing.fidelity) - MOST_SHARDS
    note = (
        "Spearman correlation with the teacher's influence, per query, on the candidates drawn "
        "from the shard; expected: the same on the test split."
    )
    return Table(
        "Fidelity by shard, worst first",
        columns,
        [_fidelity_row(each) for each in shown],
        note if left <= 0 else f"{note} {plural(left, 'better shard')} not shown.",
    )


def _label_tiles(behavior: BehaviorReport) -> list[Tile]:
    """What became of the samples with the behavior's labels."""
    unwanted = behavior.rule.kind == "unwanted"
    labelled = (
        (behavior.positive, "dropped" if unwanted else "kept"),
        (behavior.hard_negative, "lost" if unwanted else "let through"),
    )
    found = []
    for row, verb in labelled:
        if isinstance(row, Uncounted):
            detail = "not known: there are too many labels to count each"
            found.append(Tile(f"{row.name} {verb}", NOT_APPLICABLE, detail))
        elif row is not None:
            part = row.dropped if unwanted else row.kept
            of = f"{count(part)} of {count(row.rows_in)}"
            found.append(Tile(f"{label(row.name)} {verb}", percent(share(part, row.rows_in)), of))
    return found


def _merit(standing: Standing) -> str:
    chosen = ", chosen by hand" if standing.chosen_by_hand else ""
    return "" if standing.merit is None else f"{standing.merit:.3f} on the test split{chosen}"


def _verdicts(standing: Standing) -> str:
    counts = {each: len(standing.shards_that_are(each)) for each in VERDICTS}
    return ", ".join(f"{number:,} {verdict}" for verdict, number in counts.items() if number)


def _gap_tile(gap: DistillationGap) -> Tile:
    if gap.is_closed:
        whole = f"{plural(gap.shards, 'shard')}, {plural(gap.queries, 'query', 'queries')}"
        return Tile("distillation set", "up to date", whole)
    shards = f"{count(gap.new_shards)} of {plural(gap.shards, 'shard')} new"
    changed = f", {count(gap.changed_shards)} changed" if gap.changed_shards else ""
    queries = f"{count(gap.new_queries)} of {plural(gap.queries, 'query', 'queries')} new"
    return Tile(
        "distillation set",
        "behind",
        f"{shards}{changed}, {queries}; to include them: influcoder redistill",
    )


def _fidelity_row(each: MeasuredShard) -> tuple[Cell, ...]:
    # Texts: a fidelity competes with no other shard's for the best of its column.
    fidelity, low, high, expected = (
        NOT_APPLICABLE if figure is None else f"{figure:.3f}"
        for figure in (each.per_query, each.low, each.high, each.expected)
    )
    interval = NOT_APPLICABLE if each.low is None else f"{low} to {high}"
    return each.shard, each.verdict, fidelity, interval, expected, each.queries, each.candidates


def rule_in_words(rule: Rule) -> str:
    """What a rule was asked to do, e.g. "drop the highest 5.0 % of the calibration set"."""
    if rule.method == "false_drop_rate":
        good = plural(rule.known_good_rows, "known-good sample")
        return f"drop at most {percent(rule.value)} of good samples in expectation ({good})"
    verb = "drop" if rule.kind == "unwanted" else "keep"
    if rule.method == "fraction":
        return f"{verb} the highest {percent(rule.value)} of the calibration set"
    return f"{verb} {'above' if rule.kind == 'unwanted' else 'at or above'} a set threshold"


def _asked_tile(rule: Rule) -> Tile:
    if rule.method == "false_drop_rate":
        # A share of good samples, whatever the kind: no share of the corpus, as the others are.
        return Tile("good samples dropped, at most", percent(rule.value), rule_in_words(rule))
    verb = "dropped" if rule.kind == "unwanted" else "kept"
    share_asked = percent(rule.value) if rule.method == "fraction" else NOT_APPLICABLE
    return Tile(f"asked to be {verb}", share_asked, rule_in_words(rule))


def written_rows(table: Table) -> list[list[WrittenCell]]:
    """A table's cells as they are read, with the best of each column of figures marked.

    Figures that read the same are equally good; a lone figure is not marked.
    """
    best = [_best(table, column) for column in range(len(table.columns))]
    return [
        [
            WrittenCell(_write(cell), _figure(cell) is not None and _figure(cell) == best[i])
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


def plural(number: int, noun: str, several: str = "") -> str:
    """A number with its noun, e.g. "1 query", "2 queries"."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
