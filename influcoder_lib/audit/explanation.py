"""Why a sample was kept or dropped, in numbers: its standing, queries, neighbours and history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.finding import Place, find
from influcoder_lib.audit.lineage import (
    DECIDED,
    Lineage,
    Trace,
    decided_row,
    lineage,
    rules,
    trace,
)
from influcoder_lib.audit.neighbours import LiveIndex, Neighbour
from influcoder_lib.curation.index import VECTORS, read_vector
from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import DamageError
from influcoder_lib.store import Manifest, Store
from influcoder_lib.tables import load_table
from influcoder_lib.vectors import COSINE_DECIMALS

QUERIES = 3
"""How many of a behavior's queries are named, the most responsible first."""

NEIGHBOURS = 3
"""How many neighbours are named of each decision."""

LOST = "not known: the files of this version are missing or damaged"
"""Stands in the history for what was decided then."""

_OF_ROW = ("sample_id", "prompt", "response", "label", "source", "decision", "reason")
_RANK = """
SELECT count(*) FILTER (WHERE score > $score) + 1 AS rank, count(*) + 1 AS of FROM (
    SELECT CASE $statistic WHEN 'mean' THEN mean ELSE max END AS score FROM scores
    WHERE shard_state = 'live' AND behavior = $behavior AND encoder = $encoder
    AND sample_id != $sample_id)
"""


@dataclass(frozen=True)
class Responsible:
    """A query and its cosine with the sample."""

    cosine: float
    query: str
    prompt: str
    response: str


@dataclass(frozen=True)
class SampleStanding:
    """Where a sample stands for one behavior, by the statistic that the rule reads.

    `rank` 1 is the highest of `of` samples: this one, and the other live ones that the same encoder
    scored; `percentile` is the share of the calibration set at or below the score.
    """

    behavior: str
    statistic: str
    score: float
    rank: int
    of: int
    percentile: float
    threshold: float
    rule: str
    queries: tuple[Responsible, ...]


@dataclass(frozen=True)
class Past:
    """A decision on the sample and since when it held; `decision` is null while the sample was not
    in its shard, and where that cannot be read any more, as `reason` then says. Times are UTC, ISO
    8601."""

    since: str
    run_id: str
    decision: str | None
    reason: str | None
    encoder: str | None


@dataclass(frozen=True)
class Explanation:
    """All that is on record about one sample.

    `places` are all rows that hold it; the explained one comes first. `neighbours` maps drop and
    keep to the samples of the live corpus most like this one.
    """

    sample_id: str
    prompt: str
    response: str
    label: str | None
    source: str | None
    decision: str
    reason: str
    places: tuple[Place, ...]
    standings: tuple[SampleStanding, ...]
    neighbours: Mapping[str, list[Neighbour]]
    history: tuple[Past, ...]
    trace: Trace


def explain(store: Store, identity: str) -> Explanation:
    """Explain the decision on a sample, given by its id or the beginning of it.

    No model is loaded: vectors, scores and decisions are the stored ones, of the version that the
    decision was made with.

    Raises:
        DataError: no sample, or more than one, has such an id.
        StoreError: a stored file is missing or damaged.
    """
    catalog = Catalog(store)
    places = find(store, catalog, identity)
    filtered = places[0].filtered(store)
    row = _row(store, filtered, places[0].sample_id)
    origin = lineage(store, filtered)
    vector = _vector(store, origin.of("corpus_embeddings", filtered.shard), row["sample_id"])
    index = LiveIndex(store, catalog, row["encoder"])
    return Explanation(
        **{name: row[name] for name in _OF_ROW},
        places=places,
        standings=tuple(
            _standing(catalog, row, rule, _responsible(store, origin, rule.behavior, vector))
            for rule in rules(store, origin)
        ),
        neighbours={
            decision: index.nearest_decided(vector, NEIGHBOURS, decision, row["sample_id"])
            for decision in DECIDED
        },
        history=_history(store, str(filtered.shard), row["sample_id"]),
        trace=trace(store, filtered, row["sample_id"]),
    )


def _row(store: Store, filtered: Manifest, sample_id: str) -> dict[str, Any]:
    row = decided_row(store, filtered, sample_id)
    if row is None:
        raise ValueError(f"{filtered.shard}, version {filtered.number}, lacks {sample_id}")
    return row


def _vector(store: Store, embedded: Manifest, sample_id: str) -> np.ndarray:
    """The sample's stored unit vector (d,)."""
    ids = load_table(store.path(embedded, "ids.parquet"))["sample_id"]
    row = ids.index_of(sample_id)
    assert row is not None
    return read_vector(store.path(embedded, VECTORS), row)


def _standing(
    catalog: Catalog, row: Mapping[str, Any], rule: Rule, queries: tuple[Responsible, ...]
) -> SampleStanding:
    score = row[rule.score_column]
    asked = {"score": score, "statistic": rule.statistic, "behavior": rule.behavior}
    asked |= {name: row[name] for name in ("encoder", "sample_id")}
    rank = catalog.frame(_RANK, asked).row(0, named=True)
    return SampleStanding(
        behavior=rule.behavior,
        statistic=rule.statistic,
        score=round(score, COSINE_DECIMALS),
        rank=rank["rank"],
        of=rank["of"],
        percentile=round(row[f"{rule.behavior}_percentile"], COSINE_DECIMALS),
        threshold=rule.threshold,
        rule=rule.label,
        queries=queries,
    )


def _responsible(
    store: Store, origin: Lineage, behavior: str, vector: np.ndarray
) -> tuple[Responsible, ...]:
    """The behavior's queries closest to the vector; ties in the queries' order, as in scores."""
    embedded = origin.of("query_embeddings")
    queries = load_table(store.path(embedded, "queries.parquet"))
    vectors = np.load(store.path(embedded, "queries.npy"), allow_pickle=False)
    cosines = (vectors @ vector).astype(np.float64).round(COSINE_DECIMALS)
    own = queries.with_columns(pl.Series("cosine", cosines)).filter(pl.col("behavior") == behavior)
    closest = own.sort("cosine", descending=True, maintain_order=True).head(QUERIES)
    return tuple(
        Responsible(*each)
        for each in closest.select("cosine", "sample_id", "prompt", "response").iter_rows()
    )


def _history(store: Store, shard: str, sample_id: str) -> tuple[Past, ...]:
    """Decisions in the order of time, from the first on; equal ones in a row are one."""
    found: list[Past] = []
    for manifest in store.history("filtered_dataset", shard):
        try:
            row = decided_row(store, manifest, sample_id) or {}
        except DamageError:
            row = {"reason": LOST}
        now = tuple(row.get(name) for name in ("decision", "reason", "encoder"))
        if found:
            before = (found[-1].decision, found[-1].reason, found[-1].encoder)
        else:
            before = (None, None, None)
        if now != before:
            found.append(Past(manifest.created, manifest.run_id, *now))
    return tuple(found)
