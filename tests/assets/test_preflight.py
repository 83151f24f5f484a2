"""Mistakes in what the settings name are told at once, before anything is made."""

import json

import pytest

from influcoder_assets import preflight
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError, SettingsError
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.tiny_home import BEHAVIOR, KNOWN_GOOD


def test_a_home_without_mistakes_passes(new_home):
    preflight.check(Workspace.open(new_home))


@pytest.mark.parametrize("command", ["run", "plan", "redistill"])
def test_all_mistakes_are_told_at_once_and_nothing_is_made(new_home, command):
    queries = new_home / "queries"
    (queries / "rude.jsonl").unlink()
    bad = {"prompt": "a", "response": None}
    tiny_home.write_rows(queries / "known_good.jsonl", [bad])
    (queries / "reviewed.csv").write_text("sample_id,decided\n")
    settings = tiny_home.settings()
    settings["overrides"] = "queries/reviewed.csv"
    settings["encoder"]["path"] = "models/target"
    tiny_home.write_settings(new_home, settings)
    result = run(command, "--home", new_home)
    assert result.exit_code == 1
    for said in (
        "There are 4 mistakes in what the settings name.",
        f"The file of behaviors.{BEHAVIOR}.queries does not exist.",
        f"1 rows of behaviors.{BEHAVIOR}.known_good are bad",
        f"file {queries / 'known_good.jsonl'}, row 1, field response",
        "The reviewer's list has other columns than it should.",
        "'models/target' is not a sentence-transformers encoder.",
        "where: encoder.path in influcoder.yaml, ",
    ):
        assert said in result.output
    store = Workspace.open(new_home).store
    assert store.current("corpus", "a.jsonl") is None


def test_one_mistake_is_told_in_its_own_words(new_home):
    (new_home / "queries" / "rude.jsonl").write_text("")
    with pytest.raises(DataError, match=r"^The file is empty") as caught:
        preflight.check(Workspace.open(new_home))
    assert "rude.jsonl" in str(caught.value)


def test_too_few_known_good_samples_for_the_rate_are_found(new_home, change_settings):
    rule = {"kind": "unwanted", "method": "false_drop_rate", "value": 0.01}
    change_settings(new_home, f"behaviors.{BEHAVIOR}.rule", rule)
    said = f"needs at least 99 known-good samples and there are {KNOWN_GOOD}"
    with pytest.raises(SettingsError, match=said):
        preflight.check(Workspace.open(new_home))


def test_too_few_queries_to_split_are_found_until_a_set_is_frozen(new_home):
    tiny_home.write_rows(new_home / "queries" / "rude.jsonl", tiny_home.queries(3))
    with pytest.raises(DataError, match="Too few queries to distil from") as caught:
        preflight.check(Workspace.open(new_home))
    assert "give 30 query samples or more" in str(caught.value)


def test_a_frozen_set_needs_no_queries_any_more(refreshed_home):
    tiny_home.write_rows(refreshed_home / "queries" / "rude.jsonl", tiny_home.queries(3))
    preflight.check(Workspace.open(refreshed_home))


def test_a_plan_as_json_is_no_plan_where_there_is_a_mistake(new_home):
    assert json.loads(run("plan", "--home", new_home, "--json").stdout)
    (new_home / "queries" / "rude.jsonl").unlink()
    refused = run("plan", "--home", new_home, "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
