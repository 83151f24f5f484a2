"""The refresh job on a tiny home: what is made first, what each change makes anew, and what not."""

import json
import re

import dagster as dg
import numpy as np
import polars as pl
import pytest

from influcoder_assets import checks
from influcoder_assets.maker import makers
from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.curation.rules import read_rules
from influcoder_lib.samples import read_samples
from influcoder_lib.teacher.distillation_set import DistillationSet
from tests.assets import tiny_home
from tests.assets.conftest import Done
from tests.assets.tiny_home import (
    BEHAVIOR,
    QUERIES,
    ROWS,
    SHARDED,
    SHARDS,
    everywhere,
    in_shard,
)


def table(workspace: Workspace, name: str, shard: str, asset: str = "filtered_dataset"):
    """A stored table of one shard."""
    return pl.read_parquet(workspace.store.path(workspace.store.require(asset, shard), name))


@pytest.fixture(scope="module")
def workspace(done: Done) -> Workspace:
    return done.workspace


def test_one_refresh_makes_every_asset_of_every_shard(done, workspace):
    assert done.first.failures == []
    assert done.first.run.status == dg.DagsterRunStatus.SUCCESS
    assert done.first.made == everywhere(*makers())
    assert len(done.first.materialized) == len(done.first.made)
    for asset, shard in done.first.made:
        assert workspace.store.require(asset, shard).run_id == done.first.run.run_id
    assert tiny_home.plan(done.home) == []


def test_every_materialisation_has_its_own_content_as_data_version(done, workspace):
    for each in done.first.materialized:
        stored = workspace.store.require(each.asset_key.to_user_string(), each.partition)
        assert each.tags["dagster/data_version"] == stored.fingerprint
        assert each.tags["dagster/code_version"] == stored.recipe.code_version
        assert each.metadata["rows"].value == stored.rows
    versions = [e.tags["dagster/data_version"] for e in done.first.materialized if e.partition]
    assert len(set(versions)) == len(versions)


def test_dagster_knows_the_latest_data_version_of_every_partition(done):
    with tiny_home.chosen(done.home) as instance:
        assert set(instance.get_dynamic_partitions("shards")) == set(SHARDS)
        for asset in SHARDED:
            key = dg.AssetKey(asset)
            assert instance.get_materialized_partitions(key) == set(SHARDS)


def test_every_check_is_evaluated_on_every_artifact_of_its_asset_and_passes(done):
    expected = {
        (check.name, asset, shard)
        for check in checks.CHECKS
        for asset, shard in everywhere(check.asset)
    }
    found = {
        (each.check_name, each.asset_key.to_user_string(), each.partition): each.passed
        for each in done.first.evaluated
    }
    assert found.keys() == expected
    # Whether one epoch on random weights beats the untrained encoder is for the next test.
    judged = {name for name, _, _ in expected} - {"encoder_beats_untrained"}
    assert all(passed for (name, _, _), passed in found.items() if name in judged)


def test_the_champion_is_whoever_has_the_highest_merit_and_the_alias_follows(done, workspace):
    summary = workspace.store.require("champion_encoder").summary
    challenger = workspace.store.require("influence_encoder").summary
    better = summary["merit_challenger"] > summary["merit_untrained"]
    assert summary["winner"] == ("challenger" if better else "untrained")
    assert summary["encoder"] == challenger["encoder" if better else "untrained"]
    assert summary["version"] == (challenger["version"] if better else None)
    assert workspace.registry.champion() == summary["version"]
    (check,) = [e for e in done.first.evaluated if e.check_name == "encoder_beats_untrained"]
    assert check.passed == better
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_rows_in_are_kept_or_dropped_or_quarantined(workspace):
    total = 0
    for shard in SHARDS:
        kept, dropped = (table(workspace, f"{name}.parquet", shard) for name in ("kept", "dropped"))
        bad = table(workspace, "quarantine.parquet", shard, "corpus")
        assert len(bad) == (1 if shard == "a.jsonl" else 0)
        assert len(kept) + len(dropped) == ROWS
        samples = read_samples(
            workspace.store.path(workspace.store.require("corpus", shard), "samples.parquet")
        )
        assert {*kept["sample_id"], *dropped["sample_id"]} == set(samples["sample_id"])
        total += len(kept) + len(dropped) + len(bad)
    report = workspace.store.require("curation_report").summary
    assert report["rows_in"] == total == 3 * ROWS + 1
    assert report["kept"] + report["dropped"] + report["quarantined"] == total


def test_every_dropped_row_says_why_and_by_which_encoder(workspace):
    store = workspace.store
    (rule,) = read_rules(store.path(store.require("decision_rule"), "rules.json"))
    queries = pl.read_parquet(store.path(store.require("behavior_queries"), "queries.parquet"))
    dropped = pl.concat([table(workspace, "dropped.parquet", shard) for shard in SHARDS])
    assert len(dropped) > 0
    assert dropped["behavior"].unique().to_list() == [BEHAVIOR]
    assert dropped["rule"].unique().to_list() == [rule.label]
    assert dropped["threshold"].unique().to_list() == [rule.threshold]
    assert (dropped["score"].cast(pl.Float64) > rule.threshold).all()
    assert dropped["percentile"].is_between(0.7, 1).all()
    assert set(dropped["best_query"]) <= set(queries["sample_id"])
    encoder = store.require("champion_encoder").summary["encoder"]
    assert dropped["encoder"].unique().to_list() == [encoder]
    for reason in dropped["reason"]:
        behavior, threshold = re.fullmatch(
            r"(\w+): score \S+ is above the threshold (\S+) \(.*\)", reason
        ).groups()
        assert behavior == BEHAVIOR
        assert float(threshold) == pytest.approx(rule.threshold, abs=1e-3)
    kept = pl.concat([table(workspace, "kept.parquet", shard) for shard in SHARDS])
    assert (kept[f"{BEHAVIOR}_max"].cast(pl.Float64) <= rule.threshold).all()


def test_quarantine_names_file_row_field_and_reason(workspace):
    (bad,) = table(workspace, "quarantine.parquet", "a.jsonl", "corpus").to_dicts()
    assert (bad["file"], bad["row"], bad["field"]) == ("a.jsonl", ROWS + 1, "response")
    assert "blank" in bad["reason"]


def test_distillation_splits_share_no_prompt(workspace):
    store = workspace.store
    made = store.require("distillation_set")
    queries, candidates = (
        pl.read_parquet(store.path(made, f"{name}.parquet")) for name in ("queries", "candidates")
    )
    assert len(queries) == QUERIES
    both = pl.concat([queries.select("prompt", "split"), candidates.select("prompt", "split")])
    assert both.group_by("prompt").agg(pl.col("split").n_unique())["split"].max() == 1
    assert not set(queries["sample_id"]) & set(candidates["sample_id"])


def test_of_too_many_candidates_each_shard_s_first_are_distilled_from(
    refreshed_home, change_settings
):
    change_settings(refreshed_home, "distillation.candidates", 30)
    workspace = Workspace.open(refreshed_home)
    tiny_home.make(workspace, "distillation_set")
    store = workspace.store
    frozen = DistillationSet.load(store.place(store.require("distillation_set")))
    drawn = {}
    for shard in SHARDS:
        folder = store.place(store.require("gradient_projections", shard))
        first = pl.read_parquet(folder / "candidates.parquet")["sample_id"].head(30 // len(SHARDS))
        drawn |= dict(zip(first, np.load(folder / "features.npy"), strict=False))
    ids = frozen.candidates["sample_id"].to_list()
    assert 8 <= len(ids) <= 30
    assert set(ids) <= drawn.keys()
    np.testing.assert_array_equal(frozen.candidate_features, [drawn[each] for each in ids])


def test_the_comparison_and_the_report_are_there_to_read(workspace):
    store = workspace.store
    comparison = json.loads(
        store.path(store.require("encoder_comparison"), "comparison.json").read_text()
    )
    predictors = {row[0] for row in comparison["tables"][0]["rows"]}
    assert {"response length", "BM25", "untrained encoder", "influence encoder"} <= predictors
    assert len(comparison["tables"]) == 3
    report = store.path(store.require("curation_report"), "report.html").read_text()
    for shard in SHARDS:
        assert shard in report


def test_a_false_drop_rate_is_calibrated_on_the_known_good_rows(refreshed_home, change_settings):
    rule = {"kind": "unwanted", "method": "false_drop_rate", "value": 0.1}
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule", rule)
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == everywhere("decision_rule", "filtered_dataset", "curation_report")
    store = Workspace.open(refreshed_home).store
    (made,) = read_rules(store.path(store.require("decision_rule"), "rules.json"))
    assert made.known_good_rows == tiny_home.KNOWN_GOOD


def test_too_few_known_good_rows_say_how_many_are_needed(refreshed_home, change_settings):
    rule = {"kind": "unwanted", "method": "false_drop_rate", "value": 0.01}
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule", rule)
    (failure,) = tiny_home.refresh(refreshed_home).failures
    assert failure.startswith("decision_rule: ")
    assert "99" in failure
    assert str(tiny_home.KNOWN_GOOD) in failure


def test_other_known_good_rows_do_not_retrain(refreshed_home):
    path = refreshed_home / "queries" / "known_good.jsonl"
    tiny_home.append_row(path, {"prompt": "g g", "response": "the blue dog sings ."})
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == everywhere(
        "calibration_scores",
        "influence_scores",
        "decision_rule",
        "filtered_dataset",
        "curation_report",
    )


def test_the_reviewer_beats_the_rules(done, refreshed_home, change_settings):
    before = done.workspace
    saved = table(before, "dropped.parquet", "c.parquet")["sample_id"][0]
    doomed = table(before, "kept.parquet", "c.parquet")["sample_id"][0]
    (refreshed_home / "reviewed.csv").write_text(
        f"sample_id,decision,note\n{saved},keep,harmless\n{doomed},drop,\n"
    )
    change_settings(refreshed_home, "overrides", "reviewed.csv")
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == {("filtered_dataset", "c.parquet"), ("curation_report", None)}
    after = Workspace.open(refreshed_home)
    kept = table(after, "kept.parquet", "c.parquet").filter(pl.col("sample_id") == saved)
    dropped = table(after, "dropped.parquet", "c.parquet").filter(pl.col("sample_id") == doomed)
    assert kept["reason"].to_list() == ["reviewer: always keep (harmless)"]
    assert dropped["reason"].to_list() == ["reviewer: always drop"]
    assert [*kept["rule"], *dropped["rule"]] == ["reviewer", "reviewer"]


def test_a_shard_without_a_valid_row_is_quarantined_whole_and_stops_nothing(refreshed_home):
    blank = {"prompt": "the cat", "response": "  ", "label": None}
    tiny_home.write_rows(refreshed_home / "corpus" / "blank.jsonl", [blank] * 3)
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == in_shard("blank.jsonl")
    assert all(each.passed for each in again.evaluated)
    made = Workspace.open(refreshed_home).store.require("filtered_dataset", "blank.jsonl")
    counts = {name: made.summary[name] for name in ("rows_in", "kept", "dropped", "quarantined")}
    assert counts == {"rows_in": 3, "kept": 0, "dropped": 0, "quarantined": 3}


def test_a_wanted_behavior_added_later_selects_and_the_unwanted_one_beats_it(refreshed_home):
    calm = [row for row in tiny_home.rows("calm", 30) if row["label"] == "kind"]
    tiny_home.write_rows(refreshed_home / "queries" / "calm.jsonl", calm)
    settings = tiny_home.settings()
    settings["behaviors"]["calm"] = {
        "queries": "queries/calm.jsonl",
        "rule": {"kind": "wanted", "method": "fraction", "value": 0.5, "statistic": "mean"},
        "positive_label": "kind",
    }
    tiny_home.write_settings(refreshed_home, settings)
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert not {"distillation_set", "influence_encoder", "corpus_embeddings"} & {
        asset for asset, _ in again.made
    }
    after = Workspace.open(refreshed_home)
    kept, dropped = (
        pl.concat([table(after, f"{name}.parquet", shard) for shard in SHARDS])
        for name in ("kept", "dropped")
    )
    rude, wanted = read_rules(after.store.path(after.store.require("decision_rule"), "rules.json"))
    assert (rude.kind, wanted.kind) == ("unwanted", "wanted")
    assert kept["behavior"].unique().to_list() == ["calm"]
    assert (kept["calm_mean"].cast(pl.Float64) >= wanted.threshold - 1e-6).all()
    assert (kept["rude_max"].cast(pl.Float64) <= rude.threshold + 1e-6).all()
    unclaimed = dropped.filter(pl.col("behavior").is_null())
    assert len(unclaimed) > 0
    assert unclaimed["reason"].unique().to_list() == ["no wanted behavior reaches its threshold"]


def test_a_corpus_of_one_file_keeps_the_file_s_name(new_home, change_settings):
    change_settings(new_home, "corpus.path", "corpus/a.jsonl")
    manifest, task = tiny_home.make(Workspace.open(new_home), "corpus", "a.jsonl")
    assert manifest.summary["file"] == "a.jsonl"
    samples = read_samples(task.workspace.store.path(manifest, "samples.parquet"))
    assert samples["file"].unique().to_list() == ["a.jsonl"]


def test_a_query_that_is_in_the_corpus_fails_a_check_that_names_it(refreshed_home):
    query = tiny_home.queries()[3]
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", {**query, "label": "rude"})
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    (failed,) = [each for each in again.evaluated if not each.passed]
    assert (failed.check_name, failed.partition) == ("no_query_in_corpus", "a.jsonl")
    assert fingerprint.sample_id(query["prompt"], query["response"]) in failed.description
    assert failed.severity == dg.AssetCheckSeverity.ERROR
