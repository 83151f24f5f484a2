"""`influcoder export` on a real home: what was filtered, no more and no less, and it says so."""

import json

import polars as pl
import pytest
import yaml

from influcoder_assets.workspace import Workspace
from influcoder_lib.export.tables import SCHEMAS
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import SHARDS
from tests.loading import load


def stored(home, name: str) -> list[dict]:
    """The kept or dropped rows of every shard, with the columns that are exported."""
    store = Workspace.open(home).store
    columns = list(SCHEMAS["data" if name == "kept" else "dropped"])
    tables = [
        pl.read_parquet(store.path(store.require("filtered_dataset", shard), f"{name}.parquet"))
        for shard in SHARDS
    ]
    return pl.concat(table.select(columns) for table in tables).to_dicts()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_was_filtered_is_what_datasets_loads(done: Done, tmp_path, form):
    result = run("export", tmp_path / "out", "--format", form, "--home", done.home)
    assert result.exit_code == 0
    kept, dropped = stored(done.home, "kept"), stored(done.home, "dropped")
    assert f"3 shards: {len(kept)} rows kept, {len(dropped)} dropped" in result.output
    assert str(tmp_path / "out") in result.output
    assert load(tmp_path / "out", tmp_path / "cache") == kept
    assert load(tmp_path / "out", tmp_path / "cache", "dropped") == dropped


def test_it_leads_back_to_the_run_the_encoder_and_the_raw_files(done: Done, tmp_path):
    run("export", tmp_path / "out", "--home", done.home)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    store = done.workspace.store
    champion = store.require("champion_encoder").summary
    (decider,) = manifest["decided_by"]
    assert (decider["encoder"], decider["version"]) == (champion["encoder"], champion["version"])
    assert decider["fidelity"]["per_query"] == champion["per_query"]
    assert decider["target_model"] == "models/target"
    assert {shard["dagster_run"] for shard in manifest["shards"]} == {done.first.run.run_id}
    assert [shard["raw_file"] for shard in manifest["shards"]] == [
        "a.jsonl",
        "c.parquet",
        "sub/b.csv",
    ]
    hashes = [done.workspace.hashes.of(done.workspace.shards[shard]) for shard in SHARDS]
    assert [shard["raw_fingerprint"] for shard in manifest["shards"]] == hashes


def test_an_up_to_date_home_is_exported_without_a_warning(done: Done, tmp_path):
    result = run("export", tmp_path / "out", "--home", done.home)
    assert "out of date" not in result.output
    assert "Out of date" not in (tmp_path / "out" / "README.md").read_text()


def test_what_is_out_of_date_is_exported_and_said_loudly(refreshed_home, tmp_path):
    before = stored(refreshed_home, "kept")
    row = {"prompt": "h h h h", "response": "the green cat sleeps .", "label": None}
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", row)
    result = run("export", tmp_path / "out", "--home", refreshed_home)
    steps = len(tiny_home.plan(refreshed_home))
    assert steps > 0
    assert f"out of date: {steps}." in " ".join(result.output.split())
    assert f"{steps} steps of the pipeline" in (tmp_path / "out" / "README.md").read_text()
    assert load(tmp_path / "out", tmp_path / "cache") == before


def test_what_failed_is_said_where_its_rows_of_before_are_exported(refreshed_home, tmp_path):
    """Of a shard that is broken now, and of a file that cannot be a shard."""
    corpus = refreshed_home / "corpus"
    (corpus / "c.parquet").write_bytes(b"PAR1 is how it begins")
    (corpus / "link.jsonl").symlink_to("/nowhere.jsonl")
    assert tiny_home.refresh(refreshed_home).failures
    result = run("export", tmp_path / "out", "--home", refreshed_home)
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert "What failed and could not be made: 2 (corpus/c.parquet, corpus/link.jsonl)" in shown
    failed = ["corpus/c.parquet", "corpus/link.jsonl"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"] == failed
    assert "**Failed:**" in (tmp_path / "out" / "README.md").read_text()


def test_a_shard_whose_file_is_gone_stays_out_and_a_new_one_is_missed(refreshed_home, tmp_path):
    corpus = refreshed_home / "corpus"
    (corpus / "a.jsonl").rename(corpus / "new.jsonl")
    result = run("export", tmp_path / "out", "--home", refreshed_home)
    assert "not filtered: 1 (new.jsonl)" in " ".join(result.output.split())
    rows = load(tmp_path / "out", tmp_path / "cache")
    assert {row["file"] for row in rows} == {"c.parquet", "sub/b.csv"}


def test_licences_are_in_the_card_and_make_nothing_anew(refreshed_home, tmp_path):
    settings = tiny_home.settings()
    settings["corpus"]["licences"] = {"forum": "mit"}
    tiny_home.write_settings(refreshed_home, settings)
    assert tiny_home.plan(refreshed_home) == []
    run("export", tmp_path / "out", "--home", refreshed_home)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["licences"] == {"forum": "mit"}


@pytest.mark.parametrize("inside", ["corpus", "data"])
def test_it_does_not_write_where_files_would_be_taken_for_something_else(refreshed_home, inside):
    before = sorted(refreshed_home.rglob("*"))
    result = run("export", refreshed_home / inside / "out", "--home", refreshed_home)
    assert result.exit_code == 1
    assert "choose a folder outside" in result.output
    assert sorted(refreshed_home.rglob("*")) == before


def test_it_does_not_write_over_anything(done: Done, tmp_path):
    (tmp_path / "mine").write_text("mine")
    result = run("export", tmp_path, "--home", done.home)
    assert result.exit_code == 1
    assert "There is something at the place to export to." in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_home_in_which_nothing_was_filtered_says_what_to_do(new_home, tmp_path):
    result = run("export", tmp_path / "out", "--home", new_home)
    assert result.exit_code == 1
    assert "Nothing has been filtered yet" in result.output
    assert "influcoder run" in result.output


def test_an_unknown_format_is_an_error_that_names_the_known_ones(done: Done, tmp_path):
    result = run("export", tmp_path / "out", "--format", "csv", "--home", done.home)
    assert result.exit_code == 2
    assert "parquet" in result.output
    assert not (tmp_path / "out").exists()


def test_the_cards_metadata_are_those_of_the_files(done: Done, tmp_path):
    run("export", tmp_path / "out", "--format", "jsonl", "--home", done.home)
    text = (tmp_path / "out" / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    for part in metadata["configs"]:
        assert list((tmp_path / "out").glob(part["data_files"]))
