"""What a query has dropped: exactly the live samples that name it as their best query."""

import polars as pl
import pytest

from influcoder_lib.audit.queries import dropped_by
from influcoder_lib.errors import DataError
from tests.lib.audit.chain import Chain, ids_of, rows_of


def dropped(chain: Chain, *shards: str) -> pl.DataFrame:
    return pl.concat(
        pl.read_parquet(chain.store.path(chain.filtered(shard), "dropped.parquet"))
        for shard in shards
    )


def test_it_is_every_dropped_sample_with_that_best_query_highest_first(ran: Chain):
    ran.thresholds["rude"] = -1.0
    ran.shards["gone"] = rows_of("gone")
    ran.run()
    ran.store.bury("gone")
    table = dropped(ran, "a", "b")
    assert len(table) == 24
    for query in ids_of(ran.queries["rude"]):
        own = table.filter(pl.col("best_query") == query)
        own = own.sort("score", "sample_id", descending=[True, False])
        found = dropped_by(ran.store, query[:8], top=100)
        assert (found.query, found.behaviors, found.dropped) == (query, ("rude",), len(own))
        assert [each.sample_id for each in found.top] == own["sample_id"].to_list()
        assert [each.score for each in found.top] == pytest.approx(own["score"].to_list())
        assert [(each.label, each.row, each.prompt) for each in found.top] == list(
            own.select("label", "row", "prompt").iter_rows()
        )
        assert (found.prompt, found.response) in {row[:2] for row in ran.queries["rude"]}


def test_top_shows_some_and_counts_all(ran: Chain):
    ran.thresholds["rude"] = -1.0
    ran.run()
    most = dropped(ran, "a", "b")["best_query"].value_counts().sort("count")[-1]
    found = dropped_by(ran.store, most["best_query"].item(), top=2)
    assert (len(found.top), found.dropped) == (2, most["count"].item())


def test_a_query_that_dropped_nothing_says_so(ran: Chain):
    ran.thresholds["rude"] = 1.0
    ran.run()
    found = dropped_by(ran.store, ids_of(ran.queries["rude"])[0], top=10)
    assert (found.dropped, found.top) == (0, ())


def test_a_query_that_was_taken_out_is_known_by_what_it_dropped(ran: Chain):
    ran.thresholds["rude"] = -1.0
    ran.run()
    query = dropped(ran, "b")["best_query"][0]
    ran.queries["rude"] = [row for row in ran.queries["rude"] if ids_of([row]) != [query]]
    ran.shards = {"a": ran.shards["a"]}
    ran.run()
    found = dropped_by(ran.store, query, top=100)
    assert found.dropped == (dropped(ran, "b")["best_query"] == query).sum()
    assert (found.behaviors, found.prompt, found.response) == (("rude",), None, None)


@pytest.mark.parametrize("identity", ["000000", "sample"])
def test_what_is_no_query_is_an_error(ran: Chain, identity):
    asked = ids_of(ran.shards["a"])[0] if identity == "sample" else identity
    with pytest.raises(DataError, match=f"No query has the id {asked}") as caught:
        dropped_by(ran.store, asked, top=10)
    assert caught.value.where == "5 queries"
    assert "FROM queries" in caught.value.fix
