"""`influcoder status`: one screen that agrees with the store, the plan and Dagster."""

import json
import shutil

import pytest

from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import BEHAVIOR, QUERIES, ROWS


def status(home) -> dict:
    result = run("status", "--home", home, "--json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


def screen(home) -> str:
    """The screen's words, with single spaces."""
    result = run("status", "--home", home)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_the_corpus_adds_up(done: Done):
    found = status(done.home)["corpus"]
    report = done.workspace.store.require("curation_report").summary
    counts = {name: report[name] for name in ("rows_in", "kept", "dropped", "quarantined")}
    assert found == {"shards": 3, "gone": 0, "not_filtered": 0, **counts}
    assert found["rows_in"] == found["kept"] + found["dropped"] + found["quarantined"]
    said = f"3 shards; {3 * ROWS + 1} rows in = {found['kept']} kept + {found['dropped']} dropped"
    assert said in screen(done.home)


def test_it_names_the_encoder_in_use_its_fidelity_and_since_when(done: Done):
    champion = done.workspace.store.require("champion_encoder")
    found = status(done.home)["encoders"]
    assert found["fingerprint"] == champion.summary["encoder"]
    assert found["in_use_since"] == champion.created
    assert found["standing"]["in_use"] == champion.summary["version"]
    assert found["fidelity"]["per_query"] == champion.summary["per_query"]
    shown = screen(done.home)
    assert f"per query {champion.summary['per_query']:.3f}" in shown
    assert f"since {champion.created}" in shown


def test_a_challenger_that_lost_is_told_of(refreshed_home):
    store = Workspace.open(refreshed_home).store
    champion = store.require("champion_encoder")
    lost = {"winner": "untrained", "version": None, "merit_challenger": 0.123, "encoder": "0" * 32}
    with store.publish("champion_encoder", None, champion.recipe, "later") as draft:
        shutil.copytree(store.place(champion), draft.folder, dirs_exist_ok=True)
        draft.summary |= champion.summary | lost
    shown = screen(refreshed_home)
    assert "encoder in use the untrained encoder" in shown
    latest = store.require("influence_encoder").summary["version"]
    assert f"latest trained version {latest}, 0.123 on the test split, not in use" in shown
    since = status(refreshed_home)["encoders"]["in_use_since"]
    assert since == store.require("champion_encoder").created


def test_it_says_how_far_the_distillation_set_is_behind(refreshed_home):
    gap = status(refreshed_home)["encoders"]["standing"]["gap"]
    assert (gap["new_shards"], gap["new_queries"]) == (0, 0)
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    more = {"prompt": "one more", "response": "the red dog runs ."}
    tiny_home.append_row(refreshed_home / "queries" / "rude.jsonl", more)
    assert tiny_home.refresh(refreshed_home).failures == []
    gap = status(refreshed_home)["encoders"]["standing"]["gap"]
    assert (gap["shards"], gap["new_shards"]) == (4, 1)
    assert (gap["queries"], gap["new_queries"]) == (QUERIES + 1, 1)
    assert "behind, 1 of 4 shards new" in screen(refreshed_home)


def test_every_behavior_has_its_rule_threshold_and_share(done: Done):
    (found,) = status(done.home)["behaviors"]
    corpus = status(done.home)["corpus"]
    store = done.workspace.store
    assert found["name"] == BEHAVIOR
    assert found["rule"] == "drop the highest 20.0 % of the calibration set"
    assert found["threshold"] == store.require("decision_rule").summary[f"threshold_{BEHAVIOR}"]
    assert found["dropped"] == corpus["dropped"]
    assert found["share"] == corpus["dropped"] / (corpus["kept"] + corpus["dropped"])


def test_a_wanted_behavior_is_not_said_to_drop(refreshed_home, change_settings):
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule.kind", "wanted")
    assert tiny_home.refresh(refreshed_home).failures == []
    (found,) = status(refreshed_home)["behaviors"]
    assert (found["dropped"], found["share"]) == (None, None)
    said = f"{found['rule']}; threshold {found['threshold']:.4f}"
    assert found["rule"] == "keep the highest 20.0 % of the calibration set"
    assert f"{said} plan everything is up to date" in screen(refreshed_home)


def test_the_plan_is_that_of_influcoder_plan_with_the_first_reasons(
    refreshed_home, change_settings
):
    change_settings(refreshed_home, "encoder.seeds", [0, 1, 2])
    found = status(refreshed_home)["steps"]
    assert [tuple(step.values()) for step in found] == tiny_home.plan(refreshed_home)
    shown = screen(refreshed_home)
    assert f"{len(found)} steps out of date" in shown
    assert "influence_encoder: setting seeds: [0, 1] → [0, 1, 2]" in shown


def test_an_up_to_date_home_says_so(done: Done):
    shown = screen(done.home)
    assert "plan everything is up to date" in shown
    assert "failed" not in shown


def test_a_failure_that_stands_is_shown_in_one_line(refreshed_home):
    (refreshed_home / "corpus" / "broken.parquet").write_bytes(b"PAR1 is how it begins")
    tiny_home.refresh(refreshed_home)
    found = status(refreshed_home)
    assert list(found["failures"]) == ["corpus/broken.parquet"]
    assert found["corpus"]["not_filtered"] == 1
    assert found["waiting"] == 4
    assert found["last_run"]["status"] == "failure"
    shown = screen(refreshed_home)
    assert "failed corpus/broken.parquet: " in shown
    assert "4 artifacts wait for what failed; everything else is up to date" in shown
    assert "1 not filtered yet" in shown


def test_a_shard_whose_file_is_gone_counts_as_gone_and_its_rows_do_not(refreshed_home):
    before = status(refreshed_home)["corpus"]
    (refreshed_home / "corpus" / "c.parquet").unlink()
    after = status(refreshed_home)["corpus"]
    assert (after["shards"], after["gone"]) == (2, 1)
    assert after["rows_in"] == before["rows_in"] - ROWS
    (found,) = status(refreshed_home)["behaviors"]
    assert found["dropped"] == after["dropped"]
    assert "2 shards, 1 gone" in screen(refreshed_home)


def test_it_knows_the_last_run_of_dagster(done: Done):
    found = status(done.home)["last_run"]
    assert (found["job"], found["status"]) == ("refresh", "success")
    assert found["began"] <= found["ended"]
    assert "last run refresh, success" in screen(done.home)


def test_it_measures_what_lies_on_the_disk(done: Done):
    found = status(done.home)["bytes"]
    files = [path for path in (done.home / "data").rglob("*") if path.is_file()]
    assert found["data"] == sum(path.stat().st_size for path in files)
    assert found["registry"] >= (done.home / "mlflow.db").stat().st_size


def test_a_home_in_which_nothing_was_made_has_a_screen_too(new_home):
    found = status(new_home)
    assert (found["encoders"], found["last_run"], found["behaviors"]) == (None, None, [])
    assert found["corpus"]["not_filtered"] == 3
    shown = screen(new_home)
    assert "encoder in use none yet" in shown
    assert "last run none yet" in shown


def test_looking_makes_nothing(refreshed_home):
    def files():
        return {
            path: path.stat().st_mtime_ns
            for folder in ("artifacts", "manifests", "rows")
            for path in (refreshed_home / "data" / folder).rglob("*")
        }

    before = files()
    status(refreshed_home)
    assert files() == before


@pytest.mark.parametrize("arguments", [("status",), ("export", "out")])
def test_a_folder_that_is_no_home_says_how_to_make_one(tmp_path, arguments):
    result = run(*arguments, "--home", tmp_path)
    assert result.exit_code == 1
    assert "influcoder init" in result.output
