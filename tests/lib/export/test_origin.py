"""Where exported shards come from: what each was made from, whatever is in force by now."""

import shutil

import pytest

from influcoder_lib.errors import StoreError
from influcoder_lib.export.origin import find_origin
from tests.lib.export.conftest import CORPUS
from tests.lib.export.stored import FIRST, SECOND, Text


def origin_of(stored, *shards):
    return find_origin(
        stored.store, [stored.store.require("filtered_dataset", name) for name in shards]
    )


def test_one_rule_and_one_encoder_decide_on_all_shards(stored):
    origin = origin_of(stored, *CORPUS)
    (decider,) = origin.deciders
    assert decider.shards == len(CORPUS) - 1  # the shard without samples was decided by nothing
    assert decider.trace.encoder == FIRST
    assert [rule.threshold for rule in decider.rules] == [0.25]
    assert decider.fidelity == {"per_query": 0.25, "aggregated": 0.5}
    assert origin.totals == {"rows_in": 10, "kept": 4, "dropped": 4, "quarantined": 2}


def test_a_shard_keeps_the_rule_that_it_was_filtered_by(stored):
    stored.rule(0.75)
    stored.shard("kept.whole", CORPUS["kept.whole"])
    origin = origin_of(stored, "a.jsonl", "b.csv", "kept.whole")
    by_threshold = {each.rules[0].threshold: each.shards for each in origin.deciders}
    assert by_threshold == {0.25: 2, 0.75: 1}


def test_a_shard_keeps_the_queries_that_it_was_filtered_by(stored):
    stored.query(9)
    stored.shard("kept.whole", CORPUS["kept.whole"])
    origin = origin_of(stored, "a.jsonl", "b.csv", "kept.whole")
    assert {each.trace.queries["rude"]: each.shards for each in origin.deciders} == {3: 2, 9: 1}


def test_a_shard_keeps_the_encoder_that_scored_it(stored):
    stored.judge(SECOND)
    stored.shard("b.csv", CORPUS["b.csv"])
    origin = origin_of(stored, "a.jsonl", "b.csv")
    assert {each.trace.encoder: each.trace.version for each in origin.deciders} == {
        FIRST: "1",
        SECOND: "2",
    }
    assert [each.encoder for each in origin.shards] == [FIRST, SECOND]
    assert origin.compared_encoder == SECOND


def test_a_shard_keeps_the_raw_file_that_it_was_filtered_from(stored):
    before = stored.store.require("corpus", "b.csv")
    with stored.store.publish("corpus", "b.csv", before.recipe, "run-2") as draft:
        (draft.folder / "other.json").write_text("newer")
        draft.summary["file"] = "newer"
    (shard,) = origin_of(stored, "b.csv").shards
    assert shard.corpus == before


def test_what_is_no_longer_on_record_is_an_error_that_says_so(stored):
    shutil.rmtree(stored.store.root / "manifests" / "corpus" / "b.csv")
    with pytest.raises(StoreError, match=r"b\.csv was filtered from is no longer on record"):
        origin_of(stored, "b.csv")


def test_a_model_in_a_folder_of_this_machine_goes_by_its_last_name(stored):
    stored.judge(FIRST, target_model="/somewhere/secret/llama")
    stored.shard("new.jsonl", [Text("a", "b")])
    (decider,) = origin_of(stored, "new.jsonl").deciders
    assert decider.trace.target_model == "llama"
