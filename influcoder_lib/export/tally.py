"""Counts of what an export holds: by source, by label, and by why rows were dropped.

Every shard's counts are merged as they come, each kind on its own, so that what is held is a row a
name; only what the card shows becomes objects.
"""

from collections.abc import Iterator

import polars as pl

from influcoder_lib.export.card import MAX_ROWS, Groups
from influcoder_lib.report.model import DropReason, FunnelRow

_SIDES = {"data": "kept", "dropped": "dropped"}
_REASON = ("rule", "behavior")


class Tally:
    """Counts of the rows added so far."""

    def __init__(self) -> None:
        sides = dict.fromkeys(_SIDES.values(), pl.Int64())
        self._groups = {
            kind: pl.DataFrame(schema={kind: pl.String(), **sides}) for kind in ("source", "label")
        }
        self._reasons = pl.DataFrame(
            schema={**dict.fromkeys(_REASON, pl.String()), "rows": pl.Int64()}
        )

    def add(self, rows: pl.DataFrame, part: str) -> None:
        """Count the rows of one shard that go to one part, "data" or "dropped"."""
        for kind, held in self._groups.items():
            counts = (
                (pl.len() if side == part else pl.lit(0)).cast(pl.Int64).alias(name)
                for side, name in _SIDES.items()
            )
            self._groups[kind] = _merged(held, rows.group_by(kind).agg(*counts), kind)
        if part == "dropped":
            reasons = rows.group_by(_REASON).agg(rows=pl.len().cast(pl.Int64))
            self._reasons = _merged(self._reasons, reasons, *_REASON)

    def groups(self, kind: str) -> Groups:
        """Kept and dropped rows by "source" or "label", as many as the card shows."""
        found = self._groups[kind]
        ordered = found.sort(-(pl.col("kept") + pl.col("dropped")), kind).head(MAX_ROWS)
        rows = ordered.iter_rows()
        largest = [FunnelRow(name, kept, dropped, None) for name, kept, dropped in rows]
        return Groups(largest, smaller=found.height - ordered.height)

    def sources(self) -> Iterator[str | None]:
        """All different sources."""
        return iter(self._groups["source"]["source"])

    def drop_reasons(self) -> list[DropReason]:
        """Why rows were dropped, most rows first."""
        ordered = self._reasons.sort(-pl.col("rows"), *_REASON)
        return [DropReason(*row) for row in ordered.iter_rows()]


def _merged(held: pl.DataFrame, more: pl.DataFrame, *keys: str) -> pl.DataFrame:
    return pl.concat([held, more]).group_by(keys).agg(pl.all().sum())
