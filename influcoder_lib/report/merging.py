"""From what the shards' aggregates add up to, and what is known beside it, to the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from influcoder_lib.curation.rules import Rule
from influcoder_lib.report import alerts
from influcoder_lib.report.changes import Changes
from influcoder_lib.report.groups import LENGTHS, OTHERS
from influcoder_lib.report.model import (
    BehaviorReport,
    DropReason,
    FunnelRow,
    LabelHistogram,
    ListedQuery,
    ListedSample,
    Report,
    Table,
    Truncation,
    Uncounted,
)
from influcoder_lib.report.standing import Standing
from influcoder_lib.report.wording import of_trained

MOST_GROUPS = 30


@dataclass(frozen=True)
class BehaviorFacts:
    """What the aggregates do not know of a behavior: how many queries it has, and its labels."""

    queries: int
    positive_label: str | None = None
    hard_negative_label: str | None = None


@dataclass(frozen=True)
class Context:
    """What a report says beside what is in the aggregates.

    `headline` is one or two sentences: the outcome of the comparison of the encoder trained last
    with the baselines, or what is wrong with it. `tables` are that comparison. `versions` is
    provenance, name to value. Of `expected_shards`, the partition keys of the corpus, absent ones
    become a warning, and so do a dropped share above `most_dropped` and `unmatched`, the sample ids
    in the reviewer's list that no sample has. `behaviors` has every behavior of the rules.
    """

    created: str
    headline: str
    tables: Sequence[Table]
    versions: Mapping[str, str]
    expected_shards: Sequence[str]
    most_dropped: float
    behaviors: Mapping[str, BehaviorFacts]
    standing: Standing
    changes: Changes | None
    unmatched: Sequence[str] = ()
    title: str = "Curation report"


def merge(
    whole: Mapping[str, Any],
    by_shard: Mapping[str, Mapping[str, int]],
    rules: Sequence[Rule],
    context: Context,
) -> Report:
    """Build the report from what the aggregates of all shards add up to.

    Args:
        whole: the sum, as `sums.combine` gives it.
        by_shard: the counts kept, dropped and quarantined of every shard.
        rules: the decision rules in force, in the order in which to show them.
        context: everything else.
    """
    labels = {row["name"]: row for row in whole["groups"]["label"]}
    behaviors = tuple(
        _behavior(rule, whole["behaviors"][rule.behavior], context.behaviors[rule.behavior], labels)
        for rule in rules
    )
    total = _shard_row("all shards", whole)
    standing = context.standing
    headline, tables = of_trained(
        context.headline, context.tables, standing.in_use, standing.latest
    )
    shards = tuple(_shard_row(shard, by_shard[shard]) for shard in sorted(by_shard))
    return Report(
        title=context.title,
        created=context.created,
        versions=dict(context.versions),
        headline=headline,
        warnings=tuple(_warnings(whole, total, shards, behaviors, context)),
        total=total,
        by_shard=shards,
        by_label=_largest_first(whole["groups"]["label"]),
        by_source=_largest_first(whole["groups"]["source"]),
        by_length=_by_length(whole["groups"]["length"]),
        by_script=_largest_first(whole["groups"]["script"]),
        drop_reasons=tuple(
            DropReason(**row)
            for row in sorted(whole["drop_reasons"], key=lambda row: -int(row["rows"]))
        ),
        behaviors=behaviors,
        quarantine=dict(sorted(whole["quarantine"].items(), key=lambda item: -item[1])),
        truncation=Truncation(
            encoder=whole["truncated"]["encoder"],
            encoder_measured=total.kept + total.dropped,
            teacher=whole["truncated"]["teacher"],
            teacher_measured=whole["truncated"]["teacher_measured"],
        ),
        tables=tuple(tables),
        standing=standing,
        changes=context.changes,
    )


def _warnings(
    whole: Mapping[str, Any],
    total: FunnelRow,
    shards: Sequence[FunnelRow],
    behaviors: Sequence[BehaviorReport],
    context: Context,
) -> Iterator[str]:
    yield from alerts.of_shards(sorted(set(context.expected_shards) - {row.name for row in shards}))
    yield from alerts.of_quarantine(shards)
    yield from alerts.of_review(context.unmatched)
    yield from alerts.of_queries(list(whole["queries"]))
    yield from alerts.of_total(total, context.most_dropped)
    for behavior in behaviors:
        yield from alerts.of_behavior(behavior)
    yield from alerts.of_standing(context.standing)


def _behavior(
    rule: Rule,
    found: dict[str, Any],
    facts: BehaviorFacts,
    labels: Mapping[str | None, dict[str, Any]],
) -> BehaviorReport:
    return BehaviorReport(
        rule=rule,
        queries=facts.queries,
        positive=_labelled(facts.positive_label, labels),
        hard_negative=_labelled(facts.hard_negative_label, labels),
        rows=found["rows"],
        lowest=found["lowest"],
        highest=found["highest"],
        histograms=tuple(
            LabelHistogram(row["label"], tuple(row["counts"]), row["beyond"])
            for row in found["histogram"]
        ),
        **{name: tuple(map(_listed, found[name])) for name in ("top", "above", "below")},
    )


def _labelled(
    label: str | None, labels: Mapping[str | None, dict[str, Any]]
) -> FunnelRow | Uncounted | None:
    """The samples with a label; None where no label is given."""
    if label is None:
        return None
    nothing = {"name": label, "kept": 0, "dropped": 0, "partial": OTHERS in labels}
    found = labels.get(label, nothing)
    return Uncounted(label) if found["partial"] else _group_row(found)


def _listed(sample: dict[str, Any]) -> ListedSample:
    return ListedSample(**{**sample, "best_query": ListedQuery(**sample["best_query"])})


def _shard_row(name: str, counts: Mapping[str, Any]) -> FunnelRow:
    return FunnelRow(name, counts["kept"], counts["dropped"], counts["quarantined"])


def _group_row(counts: dict[str, Any]) -> FunnelRow:
    return FunnelRow(counts["name"], counts["kept"], counts["dropped"], None)


def _largest_first(counts: Sequence[dict[str, Any]]) -> tuple[FunnelRow, ...]:
    """At most MOST_GROUPS rows, the smaller groups added up; empty where no row has a name."""
    rows = sorted(map(_group_row, counts), key=lambda row: (-row.rows_in, row.name or ""))
    if all(row.name is None for row in rows):
        return ()
    if len(rows) <= MOST_GROUPS:
        return tuple(rows)
    rows.sort(key=lambda row: row.name == OTHERS)
    shown, rest = rows[: MOST_GROUPS - 1], rows[MOST_GROUPS - 1 :]
    kept, dropped = sum(row.kept for row in rest), sum(row.dropped for row in rest)
    name = "all others" if rest[-1].name == OTHERS else f"{len(rest):,} others"
    return (*shown, FunnelRow(name, kept, dropped, None))


def _by_length(counts: Sequence[dict[str, Any]]) -> tuple[FunnelRow, ...]:
    rows = map(_group_row, counts)
    return tuple(sorted(rows, key=lambda row: LENGTHS.index(str(row.name))))
