"""How aggregates add up: to what one shard that holds all rows would give, up to MOST_NAMED
labels and sources (`groups.add_groups`) and MOST_LABELS histograms (`histograms`)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import StoreError
from influcoder_lib.report.groups import GROUPS, Json, add_groups, add_rows
from influcoder_lib.report.histograms import add_histograms
from influcoder_lib.report.layout import COUNTS, NEAR, SCHEMA, TOP, TRUNCATED


def combine(aggregates: Sequence[Json], rules: Sequence[Rule]) -> Json:
    """Add up the aggregates of several shards: what one shard holding all rows would give.

    Raises:
        StoreError: an aggregate has another layout or was made with other rules, or a shard
            is there twice.
    """
    _check_combinable(aggregates, rules)
    return add_up(aggregates, rules)


def add_up(aggregates: Sequence[Json], rules: Sequence[Rule]) -> Json:
    """The same for parts that are known to belong together, such as the blocks of one shard."""
    listed = [part["behaviors"] for part in aggregates]
    return {
        "schema": SCHEMA,
        **{name: sum(part[name] for part in aggregates) for name in COUNTS},
        "groups": {
            group: add_groups([part["groups"][group] for part in aggregates]) for group in GROUPS
        },
        "drop_reasons": add_rows(
            (row for part in aggregates for row in part["drop_reasons"]),
            keys=("rule", "behavior"),
            values=("rows",),
        ),
        "quarantine": _add_counts(part["quarantine"] for part in aggregates),
        "queries": _add_counts(part["queries"] for part in aggregates),
        "truncated": {
            name: sum(part["truncated"][name] for part in aggregates) for name in TRUNCATED
        },
        "behaviors": {
            rule.behavior: _combine_behavior(rule, [shard[rule.behavior] for shard in listed])
            for rule in rules
        },
    }


def add_up_in_turn(parts: Iterable[Json], rules: Sequence[Rule]) -> Json:
    """The same for any number of parts, made one after another; no more than a few are held.

    Sums of equally many parts are added up, as in counting with binary digits: with n parts, no
    group is gone through more than about log2(n) times.
    """
    sums: list[tuple[int, Json]] = []
    for part in parts:
        held, whole = 1, part
        while sums and sums[-1][0] == held:
            whole = add_up([sums.pop()[1], whole], rules)
            held *= 2
        sums.append((held, whole))
    return add_up([whole for _, whole in sums], rules)


def _check_combinable(aggregates: Sequence[Json], rules: Sequence[Rule]) -> None:
    asked = {rule.behavior: rule.to_dict() for rule in rules}
    seen: set[str] = set()
    for part in aggregates:
        shard = part["shard"]
        if part["schema"] != SCHEMA:
            problem = f"The report aggregates of shard {shard} have another layout."
        elif {name: found["rule"] for name, found in part["behaviors"].items()} != asked:
            problem = f"Shard {shard} was filtered with other decision rules than the current ones."
        elif shard in seen:
            problem = f"Shard {shard} is in the report twice."
        else:
            seen.add(shard)
            continue
        raise StoreError(
            problem,
            where=f"filtered_dataset, shard {shard}",
            fix="Materialise filtered_dataset of this shard again.",
        )


def _combine_behavior(rule: Rule, parts: Sequence[Json]) -> Json:
    filled = [part for part in parts if part["rows"]]
    return {
        "rule": rule.to_dict(),
        "rows": sum(part["rows"] for part in parts),
        "lowest": min((part["lowest"] for part in filled), default=None),
        "highest": max((part["highest"] for part in filled), default=None),
        "histogram": add_histograms(row for part in parts for row in part["histogram"]),
        "top": _join(parts, "top", _highest_first)[:TOP],
        "above": _join(parts, "above", _lowest_first)[:NEAR],
        "below": _join(parts, "below", _highest_first)[:NEAR],
    }


def _join(parts: Sequence[Json], name: str, order: Any) -> list[Json]:
    return sorted((sample for part in parts for sample in part[name]), key=order)


def _highest_first(sample: Json) -> tuple[Any, ...]:
    return -sample["score"], sample["sample_id"], sample["file"], sample["row"]


def _lowest_first(sample: Json) -> tuple[Any, ...]:
    return sample["score"], sample["sample_id"], sample["file"], sample["row"]


def _add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))
