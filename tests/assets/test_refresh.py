"""What each change of the corpus, the queries and the rules makes anew, and why: real runs of the
job on a tiny home, told by Dagster's own event log, and the plan before each of them."""

import os
import shutil
from pathlib import Path

import dagster as dg
import polars as pl

from influcoder_assets import maker
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError
from tests.assets import tiny_home
from tests.assets.changes import (
    AFTER_THE_RULE,
    NEW_ROW,
    check_refresh,
    counts,
    interrupt,
    reasons,
    tick,
)
from tests.assets.conftest import Done
from tests.assets.tiny_home import BEHAVIOR, MERGED, ROWS, SHARDS, everywhere, in_shard

# Nothing to do.


def test_a_second_refresh_makes_nothing(refreshed_home):
    assert tiny_home.plan(refreshed_home) == []
    again = tiny_home.refresh(refreshed_home)
    assert again.run.status == dg.DagsterRunStatus.SUCCESS
    assert again.made == set()
    assert again.evaluated == []


def test_a_touch_or_the_same_bytes_again_make_nothing(refreshed_home):
    os.utime(refreshed_home / "corpus" / "a.jsonl", (1, 1))
    shard = refreshed_home / "corpus" / "c.parquet"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content)
    assert tiny_home.plan(refreshed_home) == []
    check_refresh(refreshed_home, set())


def test_made_again_by_hand_with_equal_content_makes_nothing_after_it(refreshed_home):
    workspace = Workspace.open(refreshed_home)
    for asset, shard in (("corpus", "a.jsonl"), ("decision_rule", None)):
        before = workspace.store.require(asset, shard)
        after, _ = tiny_home.make(workspace, asset, shard)
        assert after.number == before.number + 1
        assert after.fingerprint == before.fingerprint
    assert tiny_home.plan(refreshed_home) == []


def test_a_shard_whose_samples_stay_the_same_is_read_again_and_no_more(refreshed_home):
    with (refreshed_home / "corpus" / "a.jsonl").open("a") as stream:
        stream.write("\n")
    assert reasons(refreshed_home)["corpus", "a.jsonl"] == "shard changed"
    check_refresh(refreshed_home, {("corpus", "a.jsonl")})


# The corpus.


def test_a_new_shard_makes_its_own_artifacts_and_the_merged_ones(refreshed_home):
    tiny_home.write_rows(refreshed_home / "corpus" / "New.jsonl", tiny_home.rows("new"))
    assert reasons(refreshed_home) == {
        **{(asset, "new.jsonl"): "never made" for asset in tiny_home.A_SHARD},
        ("embedding_index", None): "corpus_embeddings/new.jsonl is made anew",
        ("curation_report", None): "shards changed",
    }
    check_refresh(refreshed_home, in_shard("new.jsonl"))
    with tiny_home.chosen(refreshed_home) as instance:
        assert set(instance.get_dynamic_partitions("shards")) == {*SHARDS, "new.jsonl"}


def test_a_row_added_embeds_and_scores_that_row_alone(done: Done, refreshed_home):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    assert reasons(refreshed_home) == {
        ("corpus", "a.jsonl"): "shard changed",
        ("gradient_projections", "a.jsonl"): "corpus/a.jsonl is made anew",
        ("corpus_embeddings", "a.jsonl"): "corpus/a.jsonl is made anew",
        ("influence_scores", "a.jsonl"): "corpus_embeddings/a.jsonl is made anew",
        ("filtered_dataset", "a.jsonl"): "corpus/a.jsonl is made anew",
        ("embedding_index", None): "corpus_embeddings/a.jsonl is made anew",
        ("curation_report", None): "filtered_dataset/a.jsonl is made anew",
    }
    check_refresh(refreshed_home, in_shard("a.jsonl"))
    store = Workspace.open(refreshed_home).store
    embedded = store.require("corpus_embeddings", "a.jsonl").summary
    scored = store.require("influence_scores", "a.jsonl").summary
    assert (embedded["embedded"], embedded["reused"]) == (1, ROWS)
    assert (scored["scored"], scored["reused"]) == (1, ROWS)
    assert counts(refreshed_home)["rows_in"] == counts(done.home)["rows_in"] + 1


def test_a_row_edited_gives_what_a_home_made_from_nothing_gives(refreshed_home, pristine, tmp_path):
    new_home = tiny_home.copy_home(pristine, tmp_path / "new")
    for home in (refreshed_home, new_home):
        lines = (home / "corpus" / "a.jsonl").read_text().splitlines(keepends=True)
        lines[3] = lines[3].replace("the ", "the the ")
        (home / "corpus" / "a.jsonl").write_text("".join(lines))
    check_refresh(refreshed_home, in_shard("a.jsonl"))
    store = Workspace.open(refreshed_home).store
    assert store.require("influence_scores", "a.jsonl").summary["scored"] == 1
    scores = pl.read_parquet(
        store.path(store.require("influence_scores", "a.jsonl"), "scores.parquet")
    )
    ids = pl.read_parquet(store.path(store.require("corpus", "a.jsonl"), "samples.parquet"))
    assert scores["sample_id"].to_list() == ids["sample_id"].to_list()
    # The home made from nothing has no scores to take over: all are computed, with this champion.
    champion_of(refreshed_home, new_home)
    workspace = Workspace.open(new_home)
    for asset in ("corpus", "gradient_projections", "corpus_embeddings", "influence_scores"):
        made, _ = tiny_home.make(workspace, asset, "a.jsonl")
    assert made.summary["scored"] == ROWS
    assert made.fingerprint == store.require("influence_scores", "a.jsonl").fingerprint


def champion_of(home: Path, other: Path) -> None:
    """Give another home the champion and the calibration of a home, with its registry, and nothing
    of its shards."""
    shutil.copy(home / "mlflow.db", other)
    for asset in ("champion_encoder", "query_embeddings", "calibration_scores"):
        for kind in ("artifacts", "manifests"):
            shutil.copytree(home / "data" / kind / asset, other / "data" / kind / asset)


def test_a_deleted_shard_leaves_the_merged_assets_and_a_tombstone(refreshed_home, no_model):
    (refreshed_home / "corpus" / "c.parquet").unlink()
    assert reasons(refreshed_home) == {
        ("embedding_index", None): "corpus_embeddings/c.parquet is gone",
        ("curation_report", None): "filtered_dataset/c.parquet is gone",
    }
    check_refresh(refreshed_home, everywhere(*MERGED))
    store = Workspace.open(refreshed_home).store
    assert list(store.tombstones()) == ["c.parquet"]
    assert counts(refreshed_home)["rows_in"] == 2 * ROWS + 1
    assert store.require("embedding_index").summary["segments"] == 2
    assert store.require("filtered_dataset", "c.parquet").rows == ROWS
    with tiny_home.chosen(refreshed_home) as instance:
        assert set(instance.get_dynamic_partitions("shards")) == {"a.jsonl", "sub.b.csv"}
        (observed,) = instance.fetch_observations(dg.AssetKey("corpus"), limit=5).records
        assert observed.asset_observation.partition == "c.parquet"


def test_a_shard_that_comes_back_takes_its_tombstone_away_and_is_taken_as_it_was(refreshed_home):
    shard = refreshed_home / "corpus" / "c.parquet"
    content = shard.read_bytes()
    shard.unlink()
    check_refresh(refreshed_home, everywhere(*MERGED))
    shard.write_bytes(content)
    check_refresh(refreshed_home, everywhere(*MERGED))
    assert Workspace.open(refreshed_home).store.tombstones() == {}


def test_a_renamed_shard_is_published_under_its_new_name_by_no_model(refreshed_home, no_model):
    corpus = refreshed_home / "corpus"
    (corpus / "a.jsonl").rename(corpus / "renamed.jsonl")
    check_refresh(refreshed_home, in_shard("renamed.jsonl"))
    store = Workspace.open(refreshed_home).store
    assert list(store.tombstones()) == ["a.jsonl"]
    assert store.require("corpus_embeddings", "renamed.jsonl").summary["embedded"] == 0
    assert store.require("gradient_projections", "renamed.jsonl").summary["computed"] == 0
    for asset in ("corpus_embeddings", "influence_scores"):
        files = [store.require(asset, shard).files for shard in ("a.jsonl", "renamed.jsonl")]
        assert files[0] == files[1]


def test_a_file_renamed_within_its_key_is_on_record_by_its_new_name(refreshed_home, no_model):
    corpus = refreshed_home / "corpus"
    (corpus / "sub" / "b.csv").rename(corpus / "Sub.B.csv")
    made_alike = {("influence_scores", "sub.b.csv"), ("embedding_index", None)}
    check_refresh(refreshed_home, in_shard("sub.b.csv") - made_alike)
    store = Workspace.open(refreshed_home).store
    made = store.require("corpus", "sub.b.csv")
    samples = pl.read_parquet(store.path(made, "samples.parquet"))
    assert samples["file"].unique().to_list() == [made.summary["file"]] == ["Sub.B.csv"]


def test_two_shards_changed_in_one_tick_are_both_made_in_one_run(refreshed_home):
    for name in ("a.jsonl", "new.jsonl"):
        tiny_home.append_row(refreshed_home / "corpus" / name, NEW_ROW)
    with dg.DagsterInstance.ephemeral() as instance:
        assert len(tick(refreshed_home, instance).run_requests) == 1
    check_refresh(refreshed_home, in_shard("a.jsonl") | in_shard("new.jsonl"))


def test_what_changes_while_a_refresh_runs_is_made_by_the_next_one(refreshed_home, monkeypatch):
    other = refreshed_home / "corpus" / "sub" / "b.csv"

    def edit() -> None:
        other.write_text(other.read_text() + "h h,the cat .,\n")

    interrupt(monkeypatch, "corpus_embeddings", "a.jsonl", edit)
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    first = tiny_home.refresh(refreshed_home)
    assert first.failures == []
    assert first.made == in_shard("a.jsonl")
    assert reasons(refreshed_home)["corpus", "sub.b.csv"] == "shard changed"
    check_refresh(refreshed_home, in_shard("sub.b.csv"))


def test_a_step_whose_shard_changed_since_the_run_began_is_left_to_the_next_one_with_what_follows(
    refreshed_home, monkeypatch
):
    for name in ("a.jsonl", "new.jsonl"):
        tiny_home.append_row(refreshed_home / "corpus" / name, NEW_ROW)
    new = refreshed_home / "corpus" / "new.jsonl"
    interrupt(monkeypatch, "corpus", "a.jsonl", lambda: tiny_home.append_row(new, NEW_ROW))
    first = tiny_home.refresh(refreshed_home)
    assert first.failures == []
    assert first.made == {(asset, "a.jsonl") for asset in tiny_home.A_SHARD}
    monkeypatch.undo()
    check_refresh(refreshed_home, in_shard("new.jsonl"))


def test_an_input_made_anew_by_hand_while_a_run_is_under_way_stops_what_is_made_from_it(
    refreshed_home, monkeypatch, change_settings
):
    def edit() -> None:
        shard = refreshed_home / "corpus" / "a.jsonl"
        tiny_home.append_row(shard, {**NEW_ROW, "prompt": "g g"})
        tiny_home.make(Workspace.open(refreshed_home), "corpus", "a.jsonl")

    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule.value", 0.4)
    interrupt(monkeypatch, "decision_rule", None, edit)
    first = tiny_home.refresh(refreshed_home)
    (failure,) = first.failures
    assert failure.startswith(
        "filtered_dataset/a.jsonl: corpus/a.jsonl changed while filtered_dataset/a.jsonl was made"
    )
    assert ("filtered_dataset", "c.parquet") in first.made
    monkeypatch.undo()
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == in_shard("a.jsonl") - {("corpus", "a.jsonl")}
    assert tiny_home.plan(refreshed_home) == []


def test_other_limits_of_fidelity_judge_every_shard_anew_and_reach_the_report(
    refreshed_home, change_settings
):
    change_settings(refreshed_home, "fidelity", {"warn_below": 0.99, "fail_below": 0.98})
    check_refresh(refreshed_home, everywhere("influence_scores", "curation_report"))


def test_a_shard_that_changes_while_it_is_read_is_read_again(refreshed_home, monkeypatch):
    shard = refreshed_home / "corpus" / "a.jsonl"
    tiny_home.append_row(shard, NEW_ROW)
    interrupt(
        monkeypatch, "corpus", "a.jsonl", lambda: tiny_home.append_row(shard, {**NEW_ROW, "a": "b"})
    )
    (failure,) = tiny_home.refresh(refreshed_home).failures
    assert failure.startswith("corpus/a.jsonl: shard changed while corpus/a.jsonl was made from it")
    monkeypatch.undo()
    check_refresh(refreshed_home, in_shard("a.jsonl"))
    assert counts(refreshed_home)["rows_in"] == 3 * ROWS + 3


def test_a_shard_that_is_copied_anew_while_it_is_read_is_not_held_against_it(
    refreshed_home, monkeypatch
):
    shard = refreshed_home / "corpus" / "a.jsonl"
    tiny_home.append_row(shard, NEW_ROW)
    whole = shard.read_bytes()

    def fail_on_half_of_it() -> None:
        shard.write_bytes(whole[: len(whole) // 2])
        raise DataError("A row ends in its middle.")

    interrupt(monkeypatch, "corpus", "a.jsonl", fail_on_half_of_it)
    (failure,) = tiny_home.refresh(refreshed_home).failures
    assert failure.startswith("corpus/a.jsonl: shard changed while corpus/a.jsonl was made from it")
    shard.write_bytes(whole)
    monkeypatch.undo()
    check_refresh(refreshed_home, in_shard("a.jsonl"))


# Queries, rules and the reviewer.


def test_a_query_added_scores_anew_but_neither_measures_nor_trains_nor_embeds(refreshed_home):
    path = refreshed_home / "queries" / "rude.jsonl"
    tiny_home.append_row(path, {"prompt": "h g f e", "response": "the red cat runs ."})
    assert reasons(refreshed_home)["behavior_queries", None] == "queries changed"
    check_refresh(
        refreshed_home,
        AFTER_THE_RULE
        | everywhere(
            "behavior_queries",
            "query_embeddings",
            "calibration_scores",
            "influence_scores",
            "encoder_comparison",
        ),
    )


def test_another_behavior_is_named_as_the_reason_wherever_it_counts(refreshed_home):
    settings = tiny_home.settings()
    settings["behaviors"]["curt"] = settings["behaviors"][BEHAVIOR]
    tiny_home.write_settings(refreshed_home, settings)
    found = reasons(refreshed_home)
    first = (
        "behavior_queries",
        "encoder_comparison",
        "query_embeddings",
        "calibration_scores",
        "decision_rule",
        "curation_report",
    )
    assert {found[asset, None] for asset in first} == {"behavior curt added"}


def test_another_rule_makes_thresholds_decisions_and_report(
    refreshed_home, change_settings, no_model
):
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule.value", 0.4)
    found = reasons(refreshed_home)
    assert found["decision_rule", None] == f"setting behaviors.{BEHAVIOR}.rule.value: 0.2 → 0.4"
    assert found["filtered_dataset", "a.jsonl"] == "decision_rule is made anew"
    check_refresh(refreshed_home, AFTER_THE_RULE)


def test_an_override_decides_the_shards_concerned_anew_and_no_other(
    done: Done, refreshed_home, change_settings, no_model
):
    ids = {shard: first_kept(done.workspace, shard) for shard in SHARDS}
    listed = refreshed_home / "reviewed.csv"
    listed.write_text(f"sample_id,decision,note\n{ids['c.parquet']},drop,\n{'0' * 32},drop,\n")
    change_settings(refreshed_home, "overrides", "reviewed.csv")
    assert reasons(refreshed_home) == {
        ("filtered_dataset", "c.parquet"): "overrides changed",
        ("curation_report", None): "reviewers_list changed",
    }
    check_refresh(refreshed_home, {("filtered_dataset", "c.parquet"), ("curation_report", None)})
    store = Workspace.open(refreshed_home).store
    text = store.path(store.require("curation_report"), "report.md").read_text()
    assert "list has 1 entry without effect" in text
    assert f"{'0' * 32}\\. A sample" in text
    with listed.open("a") as stream:
        stream.write(f"{ids['a.jsonl']},drop,said so\n")
    check_refresh(refreshed_home, {("filtered_dataset", "a.jsonl"), ("curation_report", None)})
    listed.write_text(f"sample_id,decision,note\n{ids['a.jsonl']},drop,said so\n")
    check_refresh(refreshed_home, {("filtered_dataset", "c.parquet"), ("curation_report", None)})


def first_kept(workspace: Workspace, shard: str) -> str:
    made = workspace.store.require("filtered_dataset", shard)
    return pl.read_parquet(workspace.store.path(made, "kept.parquet"))["sample_id"][0]


# The plan, for people.


def test_the_plan_is_the_metadata_of_an_asset_before_and_after_a_refresh(refreshed_home):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    run = tiny_home.refresh(refreshed_home).run
    with tiny_home.chosen(refreshed_home) as instance:
        found = instance.fetch_materializations(dg.AssetKey("refresh_plan"), limit=2).records
        assert {each.run_id for each in found} == {run.run_id}
        after, before = (each.asset_materialization.metadata for each in found)
    assert before["steps"].value == 7
    assert "| corpus | a\\.jsonl | shard changed |" in before["plan"].value
    assert "Everything is up to date" in after["plan"].value


def test_verifying_finds_an_edit_that_kept_size_and_time(refreshed_home):
    assert tiny_home.plan(refreshed_home) == []
    shard = refreshed_home / "corpus" / "a.jsonl"
    status = shard.stat()
    text = shard.read_text()
    shard.write_text(text.replace("cat", "dog", 1))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tiny_home.plan(refreshed_home) == []
    workspace = Workspace.open(refreshed_home)
    workspace.hashes.forget()
    steps = maker.current_plan(workspace)
    assert ("corpus", "a.jsonl", "shard changed") in [(s.asset, s.shard, s.reason) for s in steps]
