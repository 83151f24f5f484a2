"""What a query has dropped: the samples whose best query it is."""

from dataclasses import dataclass

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.finding import check_identity, check_one
from influcoder_lib.errors import DataError
from influcoder_lib.store import Store

_KNOWN = """
SELECT sample_id, behavior, prompt, response FROM queries WHERE starts_with(sample_id, $start)
UNION ALL BY NAME
SELECT DISTINCT best_query AS sample_id, behavior FROM decisions
WHERE starts_with(best_query, $start) AND best_query NOT IN (SELECT sample_id FROM queries)
ORDER BY behavior
"""
_DROPPED = """
SELECT count(*) OVER () AS in_all, d.sample_id, d.shard, d.file, d.row, d.label, d.behavior,
    round(d.score::DOUBLE, 6) AS score, round(d.percentile::DOUBLE, 6) AS percentile,
    s.prompt, s.response
FROM decisions AS d LEFT JOIN samples AS s ON s.sample_id = d.sample_id AND s.shard = d.shard
WHERE d.shard_state = 'live' AND d.decision = 'drop' AND d.best_query = $query
ORDER BY d.score DESC, d.sample_id, d.shard LIMIT $top
"""


@dataclass(frozen=True)
class Dropped:
    """A dropped sample, with its score for the behavior that dropped it."""

    sample_id: str
    shard: str
    file: str
    row: int
    label: str | None
    behavior: str
    score: float
    percentile: float
    prompt: str | None
    response: str | None


@dataclass(frozen=True)
class Effect:
    """What the live shards have lost because of a query: `dropped` in all, `top` of them.

    Prompt and response are null where it is no query of its behavior any more.
    """

    query: str
    behaviors: tuple[str, ...]
    prompt: str | None
    response: str | None
    dropped: int
    top: tuple[Dropped, ...]


def dropped_by(store: Store, identity: str, top: int) -> Effect:
    """The samples dropped with this query, given by its id or the beginning of it, as the best
    query, highest score first.

    Raises:
        DataError: no query, or more than one, has such an id.
        StoreError: a stored file is missing or damaged.
    """
    catalog = Catalog(store)
    start = check_identity(identity)
    known = catalog.frame(_KNOWN, {"start": start})
    if not len(known):
        raise DataError(
            f"No query has the id {start}.",
            where=f"{catalog.frame('SELECT count(*) FROM queries').item()} queries",
            fix='see them with `influcoder sql "SELECT sample_id, behavior FROM queries"`',
        )
    query = check_one(known["sample_id"], start)
    dropped = catalog.frame(_DROPPED, {"query": query, "top": top})
    first = known.row(0, named=True)
    return Effect(
        query=query,
        behaviors=tuple(known["behavior"]),
        prompt=first["prompt"],
        response=first["response"],
        dropped=dropped["in_all"][0] if len(dropped) else 0,
        top=tuple(Dropped(**row) for row in dropped.drop("in_all").iter_rows(named=True)),
    )
