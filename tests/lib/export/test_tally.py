"""Counts of an export: those of all shards, and no more of them held than there are names."""

from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.export.card import MAX_ROWS, Groups
from influcoder_lib.export.tables import SCHEMAS
from influcoder_lib.export.tally import Tally
from influcoder_lib.report.model import DropReason, FunnelRow

names = st.none() | st.sampled_from("abc")
row = st.fixed_dictionaries(dict.fromkeys(("source", "label", "rule", "behavior"), names))
shards = st.lists(st.tuples(st.sampled_from(list(SCHEMAS)), st.lists(row, max_size=5)), max_size=6)


def counted(parts):
    tally = Tally()
    for part, rows in parts:
        own = [
            {name: value for name, value in row.items() if name in SCHEMAS[part]} for row in rows
        ]
        tally.add(pl.DataFrame(own, schema=SCHEMAS[part]), part)
    return tally


@given(shards)
def test_it_counts_as_one_by_one(parts):
    tally = counted(parts)
    for kind in ("source", "label"):
        kept, dropped = (
            Counter(row[kind] for part, rows in parts if part == side for row in rows)
            for side in ("data", "dropped")
        )
        expected = [FunnelRow(name, kept[name], dropped[name], None) for name in kept | dropped]
        expected.sort(key=lambda row: (-row.rows_in, row.name or ""))
        assert tally.groups(kind) == Groups(expected, 0)
    assert set(tally.sources()) == {row["source"] for _, rows in parts for row in rows}
    reasons = Counter(
        (row["rule"], row["behavior"]) for part, rows in parts if part == "dropped" for row in rows
    )
    expected = [DropReason(*reason, rows) for reason, rows in reasons.items()]
    expected.sort(key=lambda each: (-each.rows, each.rule or "", each.behavior or ""))
    assert tally.drop_reasons() == expected


def test_only_the_largest_become_rows_and_the_others_are_counted():
    rows = [{"source": f"{i:03}"} for i in range(MAX_ROWS + 7)]
    found = counted([("data", rows), ("dropped", rows[-1:])]).groups("source")
    assert len(found.largest) == MAX_ROWS
    assert found.largest[0] == FunnelRow(f"{MAX_ROWS + 6:03}", 1, 1, None)
    assert found.smaller == 7
