"""Finding a sample by its id, or by the beginning of it: in the corpus now, and in what it was."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.errors import DataError, listed
from influcoder_lib.store import Manifest, Store

SHORTEST = 6
"""Fewest characters of an id that are taken for one."""

_NOW = """
SELECT sample_id, shard, version, d.file, row, decision, state, gone_since AS until
FROM stored.decisions AS d JOIN stored.files USING (filename) JOIN stored.shards USING (shard)
WHERE starts_with(sample_id, $start) ORDER BY state = 'live' DESC, shard
"""
_ONCE = """
SELECT sample_id, shard, max(version) AS version, arg_max(file, version) AS file,
    arg_max(row, version) AS row, arg_max(decision, version) AS decision
FROM stored.past JOIN stored.past_files USING (filename)
WHERE starts_with(sample_id, $start) GROUP BY sample_id, shard ORDER BY shard
"""
_UNDECIDED = "SELECT shard FROM samples WHERE starts_with(sample_id, $start) LIMIT 1"
_QUERY = "SELECT DISTINCT sample_id FROM queries WHERE starts_with(sample_id, $start)"
_COUNTS = "SELECT count(*) AS samples, count(DISTINCT shard) AS shards FROM samples"


@dataclass(frozen=True)
class Place:
    """A row that holds a sample, or held it.

    `state`: live; gone, when the shard's file is gone, since `until`; past, when the row left its
    shard at `until`. Times are UTC, ISO 8601. `version` is the number of the filtered_dataset that
    has `decision` (keep or drop).
    """

    sample_id: str
    shard: str
    version: int
    file: str
    row: int
    decision: str
    state: str
    until: str | None

    def filtered(self, store: Store) -> Manifest:
        """The filtered dataset that has the decision."""
        history = store.history("filtered_dataset", self.shard)
        return next(each for each in history if each.number == self.version)


def find(store: Store, catalog: Catalog, identity: str) -> tuple[Place, ...]:
    """Every row that holds the sample of this id, live ones first; if none does, those that did.

    Raises:
        DataError: the id is too short, no sample has it, or samples with different ids have it.
    """
    start = check_identity(identity)
    now = catalog.frame(_NOW, {"start": start})
    if len(now):
        check_one(now["sample_id"], start)
        return tuple(Place(**row) for row in now.iter_rows(named=True))
    catalog.add_past()
    once = catalog.frame(_ONCE, {"start": start})
    if len(once):
        check_one(once["sample_id"], start)
        return tuple(
            Place(**row, state="past", until=_left(store, row["shard"], row["version"]))
            for row in once.iter_rows(named=True)
        )
    raise _unknown(catalog, start)


def check_identity(identity: str) -> str:
    """The id, or the beginning of one, in lower case.

    Raises:
        DataError: it is too short, or nothing like an id.
    """
    start = identity.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", start):
        raise DataError(
            f"{identity!r} is neither a sample id nor the beginning of one.",
            allowed=f"{SHORTEST} to 32 characters from 0-9 and a-f, as in the filtered dataset",
        )
    return start


def check_one(found: Iterable[str], start: str) -> str:
    """The only id among those found.

    Raises:
        DataError: there are several.
    """
    different = sorted(set(found))
    if len(different) == 1:
        return different[0]
    raise DataError(
        f"{len(different)} ids begin with {start}.",
        where=listed(different),
        fix="give more of the id",
    )


def _left(store: Store, shard: str, version: int) -> str:
    """When the version after this one was made, which no longer has the row."""
    history = store.history("filtered_dataset", shard)
    return next(each.created for each in history if each.number > version)


def _unknown(catalog: Catalog, start: str) -> DataError:
    """Why nothing is on record about this id, and where to look."""
    undecided = catalog.frame(_UNDECIDED, {"start": start})
    if len(undecided):
        return DataError(
            f"The sample {start} has not been decided on yet.",
            where=f"shard {undecided.item()}",
            fix="type `influcoder run`",
        )
    if len(catalog.frame(_QUERY, {"start": start})):
        return DataError(
            f"{start} is no sample of the corpus but a query.",
            fix=f"type `influcoder explain --query {start}` to see what it dropped",
        )
    counts = catalog.frame(_COUNTS).row(0, named=True)
    return DataError(
        f"No sample has the id {start}.",
        where=f"{counts['samples']} samples in {counts['shards']} shards, and what they were",
        fix="a row that is no sample has no id; see why with"
        ' `influcoder sql "SELECT file, row, field, reason FROM quarantine"`',
    )
