"""Lineage: every step back leads to the artifact that was read, whatever was published since."""

import json

import polars as pl
import pytest

from influcoder_lib.audit.lineage import decided_row, lineage, trace
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.store import Manifest, Store
from tests.lib.audit.chain import TEACHER, UNTRAINED, Chain, ids_of, rows_of

CHAIN = {
    "filtered_dataset",
    "corpus",
    "influence_scores",
    "decision_rule",
    "corpus_embeddings",
    "behavior_queries",
    "query_embeddings",
    "calibration_scores",
    "champion_encoder",
    "influence_encoder",
    "distillation_set",
    "gradient_projections",
}


def key(manifest: Manifest) -> tuple[str, str | None, int]:
    return manifest.asset, manifest.shard, manifest.number


def brute_force(store: Store, manifest: Manifest) -> set[tuple[str, str | None, int]]:
    """All ancestors, found by looking through every manifest that there is."""
    everything = [
        Manifest(**{**json.loads(path.read_text()), "recipe": None})
        for path in store.root.glob("manifests/*/*/*.json")
    ]
    found = {key(manifest)}
    for label, content in manifest.recipe.inputs.items():
        same = [
            each
            for each in everything
            if label == "/".join(filter(None, (each.asset, each.shard)))
            and each.fingerprint == content
            and each.created <= manifest.created
        ]
        if same:
            newest = max(same, key=lambda each: each.number)
            found |= brute_force(
                store, store.history(newest.asset, newest.shard)[newest.number - 1]
            )
    return found


def test_it_reaches_every_asset_and_all_shards_that_the_encoder_learnt_from(ran: Chain):
    found = lineage(ran.store, ran.filtered("a"))
    assert key(found.manifests[0]) == ("filtered_dataset", "a", 1)
    assert {each.asset for each in found.manifests} == CHAIN
    assert {each.shard for each in found.manifests if each.asset == "corpus"} == {"a", "b"}
    assert {each.shard for each in found.manifests if each.asset == "influence_scores"} == {"a"}
    assert found.lost == ()


def test_it_is_the_same_as_looking_through_all_manifests(ran: Chain):
    ran.thresholds["rude"] = 0.2
    ran.run()
    ran.shards["a"] = rows_of("a", 15)
    ran.run()
    ran.challenger = ran.champion = "e2" * 16
    ran.run()
    ran.thresholds["rude"] = 0.4
    ran.shards["a"] = rows_of("a", 12)
    ran.run()
    for asset in CHAIN:
        for shard in ran.store.shards(asset) or [None]:
            for manifest in ran.store.history(asset, shard):
                walked = [key(each) for each in lineage(ran.store, manifest).manifests]
                assert len(set(walked)) == len(walked)
                assert set(walked) == brute_force(ran.store, manifest)


def test_every_input_is_looked_up_once_however_many_ways_lead_to_it(ran: Chain, monkeypatch):
    found = lineage(ran.store, ran.filtered()).manifests
    edges = [label for each in found for label in each.recipe.inputs if ":" not in label]
    looked_up = []
    read = Store.history
    monkeypatch.setattr(
        Store, "history", lambda self, *key: looked_up.append(key) or read(self, *key)
    )
    lineage(ran.store, ran.filtered())
    assert len(looked_up) == len(edges)


def test_content_that_came_back_is_traced_to_the_run_that_read_it(ran: Chain):
    first = ran.filtered()
    for threshold in (0.2, 0.4):
        ran.thresholds["rude"] = threshold
        ran.run()
    third = ran.filtered()
    rules = [lineage(ran.store, each).of("decision_rule") for each in (first, third)]
    assert rules[0].fingerprint == rules[1].fingerprint
    assert [each.run_id for each in rules] == ["run-1", "run-3"]


def test_an_input_whose_manifest_was_lost_and_made_anew_is_found(ran: Chain):
    filtered = ran.filtered("a")
    (ran.store.root / "manifests/corpus/a/000001.json").write_text("{")
    assert ran.store.current("corpus", "a") is None
    for _ in range(2):
        ran.run()
    assert ran.filtered("a") == filtered
    found = lineage(ran.store, filtered)
    assert found.lost == ()
    assert key(found.of("corpus", "a")) == ("corpus", "a", 2)


def test_an_input_that_is_no_longer_on_record_is_named(ran: Chain):
    path = next(ran.store.root.glob("manifests/decision_rule/_/*.json"))
    path.unlink()
    found = lineage(ran.store, ran.filtered())
    assert found.lost == ("decision_rule",)
    with pytest.raises(StoreError, match="no record of the decision_rule that this was made from"):
        found.of("decision_rule")


def test_a_trace_leads_from_a_row_to_its_origins(ran: Chain):
    for shard in ("a", "b"):
        for position, sample_id in enumerate(ids_of(ran.shards[shard])):
            found = trace(ran.store, ran.filtered(shard), sample_id)
            raw = ran.store.require("corpus", shard).recipe.inputs["source:shard"]
            assert (found.shard, found.file) == (shard, f"{shard}.jsonl")
            assert (found.row, found.raw_hash) == (position + 2, raw)
            assert (found.encoder, found.version, found.mlflow_run) == ("e1" * 16, "1", "mlflow-e1")
            assert (found.base_encoder, found.target_model_hash) == ("b" * 32, "f" * 32)
            assert (found.target_model, found.target_model_settings) == ("tiny", TEACHER)
            assert found.queries == {"rude": 5}
            assert found.queries_hash == ran.store.require("behavior_queries").fingerprint
            assert [(r["behavior"], r["value"], r["label"]) for r in found.rules] == [
                ("rude", 0.4, "unwanted threshold 0.4 on max")
            ]
            assert set(found.code_versions) == set(found.runs) == CHAIN
            assert found.code_versions["decision_rule"] == ["2"]
            assert found.runs["filtered_dataset"] == ["run-1"]


def test_an_old_decision_keeps_its_trace_after_new_ones(ran: Chain):
    old, sample_id = ran.filtered(), ids_of(ran.shards["a"])[3]
    before = trace(ran.store, old, sample_id)
    ran.thresholds["rude"] = -1.0
    ran.queries["rude"] = rows_of("rude query", 7)
    ran.challenger = ran.champion = "e2" * 16
    ran.shards["a"] = rows_of("a")[1:]
    ran.run()
    assert trace(ran.store, old, sample_id) == before
    after = trace(ran.store, ran.filtered(), sample_id)
    assert (before.version, after.version) == ("1", "2")
    assert (before.row, after.row) == (5, 4)
    assert before.raw_hash != after.raw_hash
    assert (before.queries, after.queries) == ({"rude": 5}, {"rude": 7})
    assert [each.rules[0]["threshold"] for each in (before, after)] == [
        pytest.approx(0.4),
        pytest.approx(-1.0),
    ]
    assert after.runs["filtered_dataset"] == ["run-2"]
    assert after.runs["gradient_projections"] == ["run-1"]


def test_a_champion_that_beat_a_later_challenger_is_traced_to_its_own_training(ran: Chain):
    ran.challenger = "e2" * 16
    ran.redistill = True
    ran.shards["c"] = rows_of("c")
    ran.run()
    found = trace(ran.store, ran.filtered("c"), ids_of(ran.shards["c"])[0])
    assert (found.encoder, found.version, found.mlflow_run) == ("e1" * 16, "1", "mlflow-e1")
    assert "run-1" in found.runs["influence_encoder"]


def test_the_untrained_encoder_has_neither_version_nor_run(chain: Chain):
    chain.champion = UNTRAINED
    chain.run()
    found = trace(chain.store, chain.filtered(), ids_of(chain.shards["a"])[0])
    assert (found.encoder, found.version, found.mlflow_run) == (UNTRAINED, None, None)
    assert found.base_encoder == "b" * 32
    assert found.target_model == "tiny"


def test_a_sample_that_was_not_decided_there_is_an_error(ran: Chain):
    stranger = ids_of(ran.shards["b"])[0]
    assert decided_row(ran.store, ran.filtered("a"), stranger) is None
    with pytest.raises(DataError, match=f"no sample {stranger}"):
        trace(ran.store, ran.filtered("a"), stranger)


def test_a_decided_row_is_the_stored_one(ran: Chain):
    for name in ("kept", "dropped"):
        stored = pl.read_parquet(ran.store.path(ran.filtered(), f"{name}.parquet"))
        assert len(stored)
        for row in stored.iter_rows(named=True):
            assert decided_row(ran.store, ran.filtered(), row["sample_id"]) == row


def test_a_version_of_a_registry_that_began_anew_is_not_the_one_of_before(ran: Chain, monkeypatch):
    monkeypatch.setattr(ran, "_published", lambda asset: 0)
    ran.challenger = ran.champion = "e2" * 16
    ran.redistill = True
    again = ran.run()
    sample_id = ids_of(ran.shards["a"])[0]
    found = trace(ran.store, ran.filtered("a"), sample_id)
    assert (found.version, found.encoder, found.mlflow_run) == ("1", "e2" * 16, "mlflow-e2")
    assert found.runs["influence_encoder"] == [again]
