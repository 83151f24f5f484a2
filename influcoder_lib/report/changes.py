"""Against the last report: which decisions moved, and what moved them.

Decisions are compared where the same sample was in the same shard both times; a sample of a shard
that was renamed is gone from one and new in the other.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import selectors

from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import StoreError, listed
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.tables import scan_table

LISTED = 10
DRAWN = 1_000_000
"""Samples whose scores are correlated, at most: those with the lowest ids, which are fingerprints
and so tell nothing of a sample."""
_DECIDED = ("sample_id", "file", "row", "label", "decision", "reason", "rule", "score")
UNEXPLAINED = (
    "Neither the encoder nor rules, queries, samples or the reviewer's list: the program itself, "
    "or what is stored beside a decision."
)


@dataclass(frozen=True)
class Basis:
    """What one report was made from, as far as two are compared; None is what is not on record.

    `queries` maps a behavior to its queries' ids, `shards` a partition key to the content
    fingerprint of its decisions; `read` gives these decisions as `read_decisions` does, and raises
    StoreError where they are not stored any more.
    """

    created: str
    encoder: str | None
    rules: Sequence[Rule] | None
    queries: Mapping[str, Set[str]] | None
    shards: Mapping[str, str]
    read: Callable[[str], pl.DataFrame]

    def differing(self, other: "Basis") -> list[str]:
        """Shards that only one of the two has, or that they have with other decisions."""
        names = sorted(self.shards.keys() | other.shards.keys())
        return [name for name in names if self.shards.get(name) != other.shards.get(name)]


@dataclass(frozen=True)
class MovedSample:
    """A sample whose decision is not what it was, with the reasons of both."""

    sample_id: str
    file: str
    row: int
    label: str | None
    reason_before: str
    reason_now: str


@dataclass(frozen=True)
class Correlation:
    """Spearman correlation of a behavior's scores, before with now, over so many samples: all that
    were compared, or a draw of them."""

    behavior: str
    spearman: float
    samples: int
    is_draw: bool


@dataclass(frozen=True)
class Changes:
    """What is different from the report that was made at `since`.

    `causes` say in words what it comes from. Samples that are in a shard now but were not are
    `new` (and `new_dropped` of them dropped), the other way round `gone`, both times `compared`:
    of these, `newly_dropped` were kept before and `restored` are kept now. All figures are about
    shards whose decisions differ. Listed are the LISTED samples with the highest score: now where
    newly dropped, before where restored. The earlier decisions of `unread` shards are not stored
    any more.
    """

    since: str
    causes: tuple[str, ...]
    new: int
    new_dropped: int
    gone: int
    compared: int
    newly_dropped: int
    restored: int
    correlations: tuple[Correlation, ...]
    listed_dropped: tuple[MovedSample, ...]
    listed_restored: tuple[MovedSample, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """What one shard contributes, beside scores."""

    counts: Counter[str]
    dropped: pl.DataFrame
    restored: pl.DataFrame


class _Draw:
    """Scores before and now of the samples with the lowest ids, of those added so far."""

    def __init__(self) -> None:
        self._held: list[pl.DataFrame] = []
        self._added = 0

    @property
    def is_all(self) -> bool:
        """No sample that was added is left out."""
        return self._added <= DRAWN

    def add(self, scores: pl.DataFrame) -> None:
        """Add a shard's: sample_id, and for behaviors the columns of both scores."""
        self._held.append(_with_own_ids(scores))
        self._added += len(scores)
        # Twice as many are held on the way, so that few shards cost a sort.
        if sum(map(len, self._held)) > 2 * DRAWN:
            self._held = [_with_own_ids(self.lowest())]

    def lowest(self) -> pl.DataFrame:
        """At most DRAWN rows; a score is null where it is not stored."""
        empty = pl.DataFrame(schema={"sample_id": pl.String})
        found = pl.concat([empty, *self._held], how="diagonal_relaxed")
        if found.height <= DRAWN:
            return found
        return found.sort("sample_id", maintain_order=True).head(DRAWN)


def _with_own_ids(scores: pl.DataFrame) -> pl.DataFrame:
    """The same rows; texts of a part of a table keep those of the whole in memory."""
    return scores.with_columns(pl.concat_str("sample_id", pl.lit("")))


def read_decisions(paths: list[Path]) -> pl.DataFrame:
    """What is compared of one shard's decisions: a row a sample, with who decided and why, and
    the columns b_mean and b_max of every behavior b."""
    decided = scan_table(paths).select(*_DECIDED, selectors.ends_with("_mean", "_max"))
    return decided.collect()


def compare(before: Basis, now: Basis) -> Changes:
    """Compare two reports; the shards that differ are read one after another.

    Raises:
        StoreError: decisions of now cannot be read.
    """
    columns = {rule.behavior: rule.score_column for rule in now.rules or ()}
    parts: dict[str, _Part] = {}
    draw = _Draw()
    unread = []
    for shard in before.differing(now):
        after = now.read(shard) if shard in now.shards else None
        try:
            earlier = before.read(shard) if shard in before.shards else None
        except StoreError:
            unread.append(shard)
            continue
        parts[shard], scores = _compare_shard(earlier, after, columns)
        draw.add(scores)
    total: Counter[str] = Counter()
    for part in parts.values():
        total.update(part.counts)
    names = ("new", "new_dropped", "gone", "compared", "newly_dropped", "restored")
    return Changes(
        since=before.created,
        causes=tuple(_causes(before, now, parts)) or (UNEXPLAINED,),
        **{name: total[name] for name in names},
        correlations=tuple(_correlations(columns, draw)),
        listed_dropped=_listed([part.dropped for part in parts.values()]),
        listed_restored=_listed([part.restored for part in parts.values()]),
        unread=tuple(unread),
    )


def _compare_shard(
    earlier: pl.DataFrame | None, after: pl.DataFrame | None, columns: Mapping[str, str]
) -> tuple[_Part, pl.DataFrame]:
    """What a shard contributes, and the scores of its samples that are in both."""
    before, now = _both_frames(earlier, after)
    both = now.join(before, on="sample_id", suffix="_before", maintain_order="left")
    new = now.join(before, on="sample_id", how="anti")
    moved = both.filter(pl.col("decision") != pl.col("decision_before"))
    dropped = moved.filter(pl.col("decision") == "drop")
    restored = moved.filter(pl.col("decision") == "keep")
    by_reviewer, by_reviewer_before = (
        pl.col(name).eq_missing(pl.lit("reviewer")) for name in ("rule", "rule_before")
    )
    counts = {
        "new": new.height,
        "new_dropped": new.filter(pl.col("decision") == "drop").height,
        "gone": before.height - both.height,
        "compared": both.height,
        "newly_dropped": dropped.height,
        "restored": restored.height,
        "reviewed": both.filter(by_reviewer & ~by_reviewer_before).height,
        "unreviewed": both.filter(by_reviewer_before & ~by_reviewer).height,
        "reviewed_otherwise": moved.filter(by_reviewer & by_reviewer_before).height,
    }
    part = _Part(
        Counter(counts),
        _highest(dropped.with_columns(by=pl.col("score"))),
        _highest(restored.with_columns(by=pl.col("score_before"))),
    )
    stored = [name for name in columns.values() if f"{name}_before" in both.columns]
    return part, both.select("sample_id", *stored, *(f"{name}_before" for name in stored))


def _both_frames(
    before: pl.DataFrame | None, now: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The decisions before and now; without rows where there are none."""
    if before is None:
        before = now.clear() if now is not None else pl.DataFrame()
    return before, before.clear() if now is None else now


def _highest(moved: pl.DataFrame) -> pl.DataFrame:
    """The LISTED rows with the highest number in the column `by`."""
    order = ("by", "sample_id", "file", "row")
    return moved.sort(order, descending=[True, False, False, False], nulls_last=True).head(LISTED)


def _listed(parts: Sequence[pl.DataFrame]) -> tuple[MovedSample, ...]:
    columns = ("sample_id", "file", "row", "label", "reason_before", "reason", "by")
    filled = [part.select(columns) for part in parts if part.height]
    if not filled:
        return ()
    rows = _highest(pl.concat(filled)).drop("by").rename({"reason": "reason_now"})
    return tuple(MovedSample(**row) for row in rows.iter_rows(named=True))


def _correlations(columns: Mapping[str, str], draw: _Draw) -> Iterator[Correlation]:
    drawn = draw.lowest()
    for behavior, name in columns.items():
        if name not in drawn.columns:
            continue
        scores = drawn.select(f"{name}_before", name).drop_nulls().to_numpy().T
        if scores.shape[1] > 1:
            (spearman,) = spearman_rows(scores[:1], scores[1:])
            yield Correlation(behavior, float(spearman), scores.shape[1], not draw.is_all)


def _causes(before: Basis, now: Basis, parts: Mapping[str, _Part]) -> Iterator[str]:
    if before.encoder and now.encoder and before.encoder != now.encoder:
        yield f"Encoder in use: {before.encoder} → {now.encoder}."
    if before.rules is not None and now.rules is not None:
        yield from _rule_causes(before.rules, now.rules)
    if before.queries is not None and now.queries is not None:
        yield from _query_causes(before.queries, now.queries)
    yield from _reviewer_causes(parts.values())
    yield from _shard_causes(before.shards, now.shards, parts)


def _rule_causes(before: Sequence[Rule], now: Sequence[Rule]) -> Iterator[str]:
    old, new = ({rule.behavior: rule for rule in rules} for rules in (before, now))
    for behavior, rule in new.items():
        if behavior not in old:
            yield f"Behavior {behavior} is new: {rule.label}."
            continue
        if old[behavior].label != rule.label:
            yield f"Rule of {behavior}: {old[behavior].label} → {rule.label}."
        if old[behavior].threshold != rule.threshold:
            change = _apart(old[behavior].threshold, rule.threshold)
            yield f"Threshold of {behavior}: {change}."
    for behavior in sorted(old.keys() - new.keys()):
        yield f"Behavior {behavior} is gone."


def _query_causes(before: Mapping[str, Set[str]], now: Mapping[str, Set[str]]) -> Iterator[str]:
    for behavior in sorted(now.keys() & before.keys()):
        added, removed = now[behavior] - before[behavior], before[behavior] - now[behavior]
        if added or removed:
            yield f"Queries of {behavior}: {len(added):,} added, {len(removed):,} removed."


def _reviewer_causes(parts: Iterable[_Part]) -> Iterator[str]:
    names = ("reviewed", "unreviewed", "reviewed_otherwise")
    more, fewer, otherwise = (sum(part.counts[name] for part in parts) for name in names)
    if more or fewer or otherwise:
        yield (f"Reviewer's list: {more:,} new, {fewer:,} withdrawn, {otherwise:,} turned round.")


def _shard_causes(
    before: Mapping[str, str], now: Mapping[str, str], parts: Mapping[str, _Part]
) -> Iterator[str]:
    edited = [
        shard
        for shard, part in parts.items()
        if shard in before and shard in now and (part.counts["new"] or part.counts["gone"])
    ]
    for what, shards in (
        ("New shards", sorted(now.keys() - before.keys())),
        ("Shards that are gone", sorted(before.keys() - now.keys())),
        ("Shards with other samples", edited),
    ):
        if shards:
            yield f"{what}: {listed(shards)}."


def _apart(before: float, now: float) -> str:
    """Two numbers, with as many decimals as it takes to tell them apart."""
    digits = next((n for n in range(4, 12) if f"{before:.{n}f}" != f"{now:.{n}f}"), 12)
    return f"{before:.{digits}f} → {now:.{digits}f}"
