"""Explanations against brute force: standing, responsible queries, neighbours, history, places."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.explanation import NEIGHBOURS, QUERIES, Explanation, explain
from influcoder_lib.audit.lineage import trace
from influcoder_lib.errors import DataError
from influcoder_lib.store import Store
from tests.lib.audit.chain import Chain, ids_of, rows_of, unit_vectors


def everything(chain: Chain) -> list[Explanation]:
    return [explain(chain.store, i) for rows in chain.shards.values() for i in ids_of(rows)]


def cosines(ids: list[str], sample_id: str, encoder: str) -> dict[str, float]:
    vectors = unit_vectors(ids, encoder) @ unit_vectors([sample_id], encoder)[0]
    return dict(zip(ids, map(float, vectors), strict=True))


def test_a_decision_is_the_one_on_record(ran: Chain):
    decided = {}
    for shard in ran.shards:
        for name in ("kept", "dropped"):
            path = ran.store.path(ran.filtered(shard), f"{name}.parquet")
            for row in pl.read_parquet(path).iter_rows(named=True):
                decided[row["sample_id"]] = row
    found = everything(ran)
    assert {each.decision for each in found} == {"keep", "drop"}
    for each in found:
        row = decided[each.sample_id]
        assert (each.decision, each.reason) == (row["decision"], row["reason"])
        assert (each.prompt, each.response, each.label) == (
            row["prompt"],
            row["response"],
            row["label"],
        )


def test_a_sample_that_has_left_its_shard_stands_among_the_others_and_itself(ran: Chain):
    rows = dict(zip(ids_of(ran.shards["a"]), ran.shards["a"], strict=True))
    scores = {each: explain(ran.store, each).standings[0].score for each in rows}
    lowest = min(scores, key=lambda each: scores[each])
    ran.shards = {"a": [row for each, row in rows.items() if each != lowest]}
    ran.store.bury("b")
    ran.run()
    found = explain(ran.store, lowest).standings[0]
    assert (found.rank, found.of) == (len(rows), len(rows))


def test_the_standing_is_score_rank_and_percentile_among_live_samples(ran: Chain):
    ran.shards["gone"] = rows_of("gone")
    ran.queries["vain"] = rows_of("vain query", 3)
    ran.thresholds["vain"] = 0.5
    ran.run()
    ran.store.bury("gone")
    del ran.shards["gone"]
    live = ids_of(ran.shards["a"] + ran.shards["b"])
    for behavior, queries in ran.queries.items():
        highest = {
            each: max(cosines(ids_of(queries), each, ran.champion).values()) for each in live
        }
        held_back = [
            max(cosines(ids_of(queries), each, ran.champion).values())
            for each in ids_of(rows_of("held back", 20))
        ]
        for each in everything(ran):
            (standing,) = [s for s in each.standings if s.behavior == behavior]
            own = highest[each.sample_id]
            assert standing.score == pytest.approx(own, abs=1e-6)
            assert standing.rank == 1 + sum(score > own for score in highest.values())
            assert standing.of == len(live)
            assert standing.percentile == pytest.approx(np.mean(np.array(held_back) <= own))
            assert standing.threshold == pytest.approx(ran.thresholds[behavior])
            assert standing.statistic == "max"


def test_the_queries_are_the_nearest_ones_of_each_behavior(ran: Chain):
    ran.queries["vain"] = rows_of("vain query", 2)
    ran.thresholds["vain"] = 0.5
    ran.run()
    for each in everything(ran):
        for standing in each.standings:
            expected = cosines(ids_of(ran.queries[standing.behavior]), each.sample_id, ran.champion)
            ordered = sorted(expected, key=expected.__getitem__, reverse=True)[:QUERIES]
            assert [query.query for query in standing.queries] == ordered
            assert [query.cosine for query in standing.queries] == pytest.approx(
                [expected[query] for query in ordered], abs=1e-6
            )
            assert standing.queries[0].cosine == pytest.approx(standing.score, abs=2e-6)
        texts = {(query.prompt, query.response) for query in each.standings[0].queries}
        assert texts <= {row[:2] for row in ran.queries["rude"]}


def test_neighbours_are_the_nearest_kept_and_dropped_ones_of_all_live_shards(ran: Chain):
    ran.shards["gone"] = rows_of("gone")
    ran.run()
    ran.store.bury("gone")
    del ran.shards["gone"]
    found = everything(ran)
    decisions = {each.sample_id: each.decision for each in found}
    for each in found:
        near = cosines(list(decisions), each.sample_id, ran.champion)
        for decision in ("keep", "drop"):
            others = [i for i in decisions if decisions[i] == decision and i != each.sample_id]
            ordered = sorted(others, key=near.__getitem__, reverse=True)[:NEIGHBOURS]
            neighbours = each.neighbours[decision]
            assert [one.sample_id for one in neighbours] == ordered
            assert [one.cosine for one in neighbours] == pytest.approx(
                [near[i] for i in ordered], abs=1e-6
            )
            assert {one.decision for one in neighbours} <= {decision}
            for one in neighbours:
                row = ran.shards[one.shard][one.row - 2]
                assert (one.file, one.prompt, one.response, one.label) == (
                    f"{one.shard}.jsonl",
                    *row,
                )


def test_a_sample_without_neighbours_of_a_kind_has_none(ran: Chain):
    ran.thresholds["rude"] = 1.0
    ran.run()
    found = everything(ran)[0]
    assert found.neighbours["drop"] == []
    assert len(found.neighbours["keep"]) == NEIGHBOURS


def test_the_trace_is_that_of_the_decision(ran: Chain):
    found = everything(ran)[0]
    assert found.trace == trace(ran.store, ran.filtered("a"), found.sample_id)


def test_the_history_tells_when_a_decision_changed_and_equal_ones_once(ran: Chain):
    sample_id, rows = ids_of(ran.shards["a"])[0], ran.shards["a"]
    for change in (
        lambda: ran.thresholds.update(rude=-1.0),
        lambda: ran.shards.update(a=[*rows, *rows_of("more", 2)]),
        lambda: ran.thresholds.update(rude=1.0),
        lambda: ran.shards.update(a=rows[1:]),
        lambda: ran.shards.update(a=rows),
        lambda: setattr(ran, "champion", "e2" * 16),
    ):
        change()
        ran.run()
    found = explain(ran.store, sample_id)
    first, *later = [(p.since[14:16], p.run_id, p.decision, p.encoder) for p in found.history]
    assert first[:2] == ("01", "run-1")
    assert later == [
        ("02", "run-2", "drop", "e1" * 16),
        ("04", "run-4", "keep", "e1" * 16),
        ("05", "run-5", None, None),
        ("06", "run-6", "keep", "e1" * 16),
        ("07", "run-7", "keep", "e2" * 16),
    ]
    assert "is above the threshold -1.000" in found.history[1].reason
    assert found.history[-1].reason == found.reason


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("no parquet")])
def test_a_version_that_cannot_be_read_is_a_gap_in_the_history(ran: Chain, harm):
    sample_id = ids_of(ran.shards["a"])[0]
    for threshold in (-1.0, 1.0):
        ran.thresholds["rude"] = threshold
        ran.run()
    whole = explain(ran.store, sample_id).history
    (_, lost, _) = ran.store.history("filtered_dataset", "a")
    harm(ran.store.place(lost) / "kept.parquet")
    found = explain(ran.store, sample_id).history
    assert (found[0], found[2]) == (whole[0], whole[2])
    assert (found[1].decision, found[1].run_id) == (None, "run-2")
    assert "missing or damaged" in found[1].reason


def test_a_sample_in_several_shards_is_explained_where_it_is_live(ran: Chain):
    ran.shards = {"0": rows_of("a", 3), "c": rows_of("a", 4), **ran.shards}
    ran.run()
    ran.store.bury("0")
    sample_id = ids_of(ran.shards["a"])[2]
    found = explain(ran.store, sample_id)
    assert [(each.shard, each.row, each.state) for each in found.places] == [
        ("a", 4, "live"),
        ("c", 4, "live"),
        ("0", 4, "gone"),
    ]
    assert found.trace.shard == "a"
    assert found.places[-1].until == ran.now
    assert all(near.sample_id != sample_id for some in found.neighbours.values() for near in some)


def test_a_sample_of_a_shard_whose_file_is_gone_is_explained_all_the_same(ran: Chain):
    ran.store.bury("b")
    found = explain(ran.store, ids_of(ran.shards["b"])[0])
    assert [(each.shard, each.state, each.until) for each in found.places] == [
        ("b", "gone", ran.now)
    ]
    assert found.standings[0].of == 13
    assert found.trace.shard == "b"


def test_a_row_that_was_taken_out_is_explained_as_it_was_decided_last(ran: Chain):
    sample_id, rows = ids_of(ran.shards["a"])[0], ran.shards["a"]
    before = explain(ran.store, sample_id)
    ran.shards["a"] = [*rows, *rows_of("more", 1)]
    ran.run()
    ran.shards["a"] = rows[1:]
    ran.run()
    found = explain(ran.store, sample_id)
    (place,) = found.places
    assert (place.shard, place.row, place.state, place.version) == ("a", 2, "past", 2)
    assert place.until == "2026-01-01T00:03:00Z"
    assert (found.decision, found.reason) == (before.decision, before.reason)
    assert found.standings[0].score == before.standings[0].score
    assert found.standings[0].of == 24
    assert [past.decision for past in found.history] == [before.decision, None]


def test_an_old_decision_is_explained_with_the_encoder_that_made_it(ran: Chain):
    ran.shards["a"], gone = ran.shards["a"][1:], ids_of(ran.shards["a"])[0]
    ran.champion = ran.challenger = "e2" * 16
    ran.run()
    found = explain(ran.store, gone)
    expected = cosines(ids_of(ran.queries["rude"]), gone, "e1" * 16)
    assert found.standings[0].score == pytest.approx(max(expected.values()), abs=1e-6)
    assert (found.standings[0].rank, found.standings[0].of) == (1, 1)
    assert found.neighbours == {"keep": [], "drop": []}
    assert (found.trace.encoder, found.trace.version) == ("e1" * 16, "1")


def test_content_that_comes_back_is_found_once(ran: Chain):
    sample_id = ids_of(ran.shards["a"])[0]
    for threshold in (-1.0, 0.4):
        ran.thresholds["rude"] = threshold
        ran.run()
    found = explain(ran.store, sample_id)
    assert [(each.shard, each.version, each.state) for each in found.places] == [("a", 3, "live")]
    assert [past.run_id for past in found.history] == ["run-1", "run-2", "run-3"]


@pytest.mark.parametrize("length", [6, 12, 32])
def test_the_beginning_of_an_id_is_enough(ran: Chain, length):
    sample_id = ids_of(ran.shards["a"])[0]
    assert explain(ran.store, f" {sample_id[:length].upper()} ").sample_id == sample_id


@pytest.mark.parametrize("identity", ["", "abcde", "xyzxyz", "%", "abcdef'", "a" * 33])
def test_what_is_no_id_is_an_error_that_says_what_one_is(ran: Chain, identity):
    with pytest.raises(DataError, match="neither a sample id nor the beginning of one") as caught:
        explain(ran.store, identity)
    assert "6 to 32 characters" in caught.value.allowed


def test_an_ambiguous_beginning_lists_what_it_could_be(ran: Chain, monkeypatch):
    monkeypatch.setattr("influcoder_lib.audit.finding.SHORTEST", 1)
    starts = [each[0] for each in ids_of(ran.shards["a"] + ran.shards["b"])]
    start = next(each for each in starts if starts.count(each) > 1)
    same = sorted(i for i in ids_of(ran.shards["a"] + ran.shards["b"]) if i[0] == start)
    with pytest.raises(DataError, match=f"{len(same)} ids begin with {start}") as caught:
        explain(ran.store, start)
    assert all(identity in caught.value.where for identity in same[:5])


def test_an_unknown_id_says_where_rows_without_one_are_listed(ran: Chain):
    with pytest.raises(DataError, match="No sample has the id 000000") as caught:
        explain(ran.store, "000000")
    assert "24 samples in 2 shards" in caught.value.where
    assert "FROM quarantine" in caught.value.fix


def test_a_query_says_how_to_see_what_it_dropped(ran: Chain):
    query = ids_of(ran.queries["rude"])[0]
    with pytest.raises(DataError, match="no sample of the corpus but a query") as caught:
        explain(ran.store, query)
    assert f"influcoder explain --query {query}" in caught.value.fix


def test_a_sample_that_waits_for_its_decision_says_so(ran: Chain):
    ran._read("c", rows_of("c"))
    with pytest.raises(DataError, match="has not been decided on yet") as caught:
        explain(ran.store, ids_of(rows_of("c"))[0])
    assert caught.value.where == "shard c"


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?"])
def test_a_store_may_be_in_a_folder_whose_name_looks_like_a_pattern(ran: Chain, name):
    # Beside it are others that the patterns would fit.
    root = ran.store.root
    for folder in (name, "a1", "bb", "cc"):
        shutil.copytree(root, root.parent / folder / "data")
    ran.store = Store(root.parent / name / "data")
    ran.shards["a"], gone = ran.shards["a"][1:], ids_of(ran.shards["a"])[0]
    ran.run()
    catalog = Catalog(ran.store)
    for view in ("samples", "decisions", "scores"):
        assert catalog.select(f"SELECT count(*) FROM {view}").rows == [(23,)]
    with pytest.raises(DataError, match="Cannot access file"):
        catalog.select(f"FROM read_text('{ran.store.root}/manifests/corpus/a/000001.json')")
    for sample_id in (gone, ids_of(ran.shards["a"])[0]):
        assert any(explain(ran.store, sample_id).neighbours.values())
