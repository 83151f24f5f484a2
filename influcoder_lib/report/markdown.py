"""The report as markdown for the pipeline's user interface: figures and ids, never a sample's text.

Whatever comes from data is escaped, so that it reads letter by letter and can start neither
markup, nor a table cell, nor a link.
"""

from collections.abc import Iterable, Sequence

from influcoder_lib.report import pictures
from influcoder_lib.report.changes import Changes, MovedSample
from influcoder_lib.report.escaping import escape
from influcoder_lib.report.html import data_address
from influcoder_lib.report.model import BehaviorReport, FunnelRow, ListedSample, Report, Table
from influcoder_lib.report.pictures import LIGHT
from influcoder_lib.report.wording import (
    FIRST_REPORT,
    NOT_APPLICABLE,
    Tile,
    behavior_tiles,
    change_tiles,
    count,
    encoder_tiles,
    fidelity_table,
    label,
    percent,
    rule_name,
    score,
    tiles,
    unread,
    written_rows,
)

MAX_ROWS = 30
MAX_GROUPS = 10
MAX_SAMPLES = 10
MAX_PICTURED = 3
"""Behaviors with pictures and samples: a run's log is no place for megabytes."""


def render_markdown(report: Report) -> str:
    """The report in GitHub-flavored markdown: headline, figures, warnings, pictures, tables."""
    blocks = [
        f"# {escape(report.headline)}",
        f"{escape(report.title)}, {escape(report.created)}",
        *(f"> **Warning:** {escape(warning)}" for warning in report.warnings),
        _tile_table(tiles(report)),
        *_change_blocks(report.changes),
        *_funnel_blocks(report),
    ]
    for behavior in report.behaviors[:MAX_PICTURED]:
        blocks += _behavior_blocks(behavior)
    if unshown := [behavior.name for behavior in report.behaviors[MAX_PICTURED:]]:
        names = ", ".join(map(escape, unshown))
        blocks.append(f"Pictures and samples of {names} are in the HTML report.")
    blocks += _encoder_blocks(report)
    blocks += _quarantine_blocks(report)
    versions = [(escape(name), escape(value)) for name, value in report.versions.items()]
    if versions:
        blocks += ["## Provenance", _table(("what", "which"), versions)]
    return "\n\n".join(blocks) + "\n"


def _change_blocks(changes: Changes | None) -> list[str]:
    if changes is None:
        return ["## Since the last report", FIRST_REPORT]
    blocks = [
        "## Since the last report",
        f"What changed since the report of {escape(changes.since)}:",
        "\n".join(f"- {escape(cause)}" for cause in changes.causes),
        _tile_table(change_tiles(changes)),
    ]
    if changes.unread:
        blocks.append(escape(unread(changes)))
    for title, samples in (
        ("Newly dropped:", changes.listed_dropped),
        ("Restored:", changes.listed_restored),
    ):
        if samples:
            blocks += [title, _moved_table(samples)]
    return blocks


def _moved_table(samples: Sequence[MovedSample]) -> str:
    rows = [
        (
            escape(f"{sample.file}:{sample.row}"),
            escape(label(sample.label)),
            escape(sample.reason_before),
            escape(sample.reason_now),
            escape(sample.sample_id),
        )
        for sample in samples
    ]
    return _table(("file:row", "label", "before", "now", "sample"), rows)


def _funnel_blocks(report: Report) -> list[str]:
    blocks = ["## Funnel"]
    if report.by_shard:
        blocks.append(_picture("rows by shard", pictures.funnel(report.by_shard, LIGHT)))
    for name, groups in (
        ("label", report.by_label),
        ("source", report.by_source),
        ("characters of the response", report.by_length),
        ("script of most letters", report.by_script),
    ):
        if len(groups) > 1:
            blocks.append(_funnel_table(name, groups))
    if report.drop_reasons:
        rows = [
            (
                escape(rule_name(reason.rule)),
                escape(reason.behavior or NOT_APPLICABLE),
                count(reason.rows),
            )
            for reason in report.drop_reasons
        ]
        blocks += ["Why rows were dropped:", _table(("rule", "behavior", "rows"), rows)]
    return blocks


def _behavior_blocks(behavior: BehaviorReport) -> list[str]:
    key = pictures.label_key(behavior)
    return [
        f"## Behavior {escape(behavior.name)} ({behavior.rule.kind})",
        _tile_table(behavior_tiles(behavior)),
        _picture("scores by label", pictures.score_histogram(behavior, LIGHT)),
        _picture("dropped share by threshold", pictures.threshold_curve(behavior, LIGHT)),
        *([escape(key)] if key else []),
        "The highest samples (more of them, and texts, are in the HTML report):",
        _sample_table(behavior.top[:MAX_SAMPLES]),
    ]


def _encoder_blocks(report: Report) -> list[str]:
    fidelity = fidelity_table(report.standing)
    blocks = ["## Encoder", _tile_table(encoder_tiles(report.standing))]
    for table in (*([fidelity] if fidelity else []), *report.tables):
        blocks += _data_blocks(table)
    return blocks


def _data_blocks(table: Table) -> list[str]:
    rows = [
        [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in row]
        for row in written_rows(table)
    ]
    blocks = [f"### {escape(table.title)}", _table(tuple(map(escape, table.columns)), rows)]
    return [*blocks, escape(table.note)] if table.note else blocks


def _quarantine_blocks(report: Report) -> list[str]:
    if not report.quarantine:
        return []
    rows = [(escape(reason), count(number)) for reason, number in report.quarantine.items()]
    return ["## Quarantine", _table(("reason", "rows"), rows)]


def _sample_table(samples: Sequence[ListedSample]) -> str:
    rows = [
        (
            score(sample.score),
            percent(sample.percentile),
            escape(sample.decision),
            escape(label(sample.label)),
            escape(f"{sample.file}:{sample.row}"),
            escape(sample.sample_id),
            escape(sample.best_query.sample_id),
        )
        for sample in samples
    ]
    columns = ("score", "percentile", "decision", "label", "file:row", "sample", "best query")
    return _table(columns, rows)


def _funnel_table(name: str, rows: Sequence[FunnelRow]) -> str:
    written = [
        (escape(label(row.name)), count(row.kept), count(row.dropped), percent(row.dropped_share))
        for row in rows
    ]
    return _table((name, "kept", "dropped", "share dropped"), written, MAX_GROUPS)


def _tile_table(shown: Iterable[Tile]) -> str:
    rows = [(escape(tile.name), f"**{escape(tile.value)}**", escape(tile.detail)) for tile in shown]
    return _table(("figure", "value", ""), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], most: int = MAX_ROWS) -> str:
    """A markdown table of escaped cells; rows beyond `most` are counted, not shown."""
    lines = [columns, ["---"] * len(columns), *rows[:most]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    left_out = len(rows) - most
    return text if left_out <= 0 else f"{text}\n\n… and {left_out:,} more rows in the HTML report."


def _picture(alt: str, png: bytes) -> str:
    return f"![{alt}]({data_address(png)})"
