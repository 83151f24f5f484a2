"""The `influcoder` command: what a user reads, and that an error is a sentence, not a trace."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from click.testing import Result
from typer.testing import CliRunner

from influcoder_assets.cli import app
from influcoder_assets.commands.driver import Ran
from influcoder_assets.commands.refresh import outcome
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError
from influcoder_lib.manifests import Manifest, Recipe
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW, interrupt
from tests.assets.conftest import Done
from tests.assets.tiny_home import ROWS

Command = Callable[..., Result]


@pytest.fixture
def influcoder(tmp_path: Path) -> Iterator[Command]:
    """Runs the command in an empty folder; the environment is put back afterwards."""
    with mock.patch.dict(os.environ), pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI"):
            os.environ.pop(name, None)
        (tmp_path / "here").mkdir()
        patch.chdir(tmp_path / "here")

        def run(*arguments: str | Path) -> Result:
            result = CliRunner().invoke(app, [str(each) for each in arguments])
            assert "Traceback" not in result.output
            assert result.exception is None or isinstance(result.exception, SystemExit)
            return result

        yield run


def test_init_makes_a_home_and_says_what_to_do_next(influcoder, tmp_path):
    result = influcoder("init", tmp_path / "mine")
    assert result.exit_code == 0
    for name in ("influcoder.yaml", "dagster.yaml", "corpus", "queries"):
        assert (tmp_path / "mine" / name).exists()
        assert name in result.output
    assert "influcoder run --home" in result.output


def test_init_overwrites_nothing(influcoder, tmp_path):
    influcoder("init", tmp_path / "mine")
    again = influcoder("init", tmp_path / "mine")
    assert again.exit_code == 1
    assert "nothing is overwritten" in again.output


@pytest.mark.parametrize("before", ["nothing", "no folder", "a shard of it"])
def test_the_demo_begins_and_goes_on_in_a_home_of_its_own(influcoder, monkeypatch, before):
    home = Path("dagster_home")
    influcoder("init", home)
    if before == "no folder":
        (home / "corpus").rmdir()
    elif before == "a shard of it":
        tiny_home.write_rows(home / "corpus" / "trivia.jsonl", tiny_home.rows("trivia"))
    written: list[Path] = []

    def write(place: Path) -> None:
        written.append(place)
        raise DataError("written")

    monkeypatch.setattr("influcoder_lib.demo_corpus.write_demo_corpus", write)
    assert influcoder("demo").output.strip() == "written"
    assert written == [home.resolve()]


@pytest.mark.parametrize("home", ["of the environment", "given"])
def test_the_demo_is_not_mixed_with_another_corpus(influcoder, new_home, home):
    os.environ["DAGSTER_HOME"] = str(new_home)
    before = sorted(new_home.rglob("*"))
    result = influcoder("demo", *(["--home", new_home] if home == "given" else []))
    assert result.exit_code == 1
    said = "corpus would be mixed" if home == "given" else "This folder is no home"
    assert said in result.output
    assert sorted(new_home.rglob("*")) == before


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_new_home_without_shards_says_where_to_put_them(influcoder, tmp_path, command):
    influcoder("init", tmp_path / "mine")
    result = influcoder(command, "--home", tmp_path / "mine")
    assert result.exit_code == 1
    assert "The corpus has no shards." in result.output
    assert f"where: folder {tmp_path / 'mine' / 'corpus'}" in result.output
    assert "put at least one there, or set corpus.path" in result.output


@pytest.mark.parametrize("command", ["plan", "run", "ui"])
def test_a_folder_that_is_no_home_says_how_to_make_one(influcoder, tmp_path, command):
    result = influcoder(command, "--home", tmp_path)
    assert result.exit_code == 1
    assert "no home" in result.output
    assert "influcoder init" in result.output


@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_unknown_key_is_named(influcoder, new_home, change_settings, command):
    change_settings(new_home, "encoder.epoch", 3)
    result = influcoder(command, "--home", new_home)
    assert result.exit_code == 1
    assert "encoder.epoch" in result.output
    assert "influcoder.yaml" in result.output
    assert "epochs" in result.output


def test_the_plan_as_json_is_a_list_of_asset_shard_reason(influcoder, new_home):
    result = influcoder("plan", "--home", new_home, "--json")
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert {tuple(step) for step in steps} == {("asset", "shard", "reason")}
    assert [tuple(step.values()) for step in steps] == tiny_home.plan(new_home)
    assert {"asset": "corpus", "shard": "a.jsonl", "reason": "never made"} in steps
    assert {"asset": "curation_report", "shard": None, "reason": "never made"} in steps


def test_the_plan_says_why(influcoder, refreshed_home, change_settings):
    change_settings(refreshed_home, "encoder.seeds", [0, 1, 2])
    result = influcoder("plan", "--home", refreshed_home)
    assert result.exit_code == 0
    assert "setting seeds: [0, 1] → [0, 1, 2]" in result.output
    assert "influence_encoder is made anew" in result.output


def test_the_plan_of_an_up_to_date_home_is_empty(influcoder, done: Done):
    assert "Everything is up to date" in influcoder("plan", "--home", done.home).output
    assert json.loads(influcoder("plan", "--home", done.home, "--json").stdout) == []


def test_dagster_home_chooses_the_home(influcoder, done: Done):
    os.environ["DAGSTER_HOME"] = str(done.home)
    assert "Everything is up to date" in influcoder("plan").output


@pytest.mark.parametrize("command", ["plan", "status", "run"])
def test_no_model_library_is_imported_where_nothing_is_to_be_made(refreshed_home, command):
    code = (
        "import sys, influcoder_assets.definitions; from influcoder_assets.cli import app;"
        "app(sys.argv[1:], standalone_mode=False);"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'sklearn', 'matplotlib'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    words = [sys.executable, "-c", code, command, "--home", str(refreshed_home)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout
    assert done.stdout.endswith("\n[]\n")


def test_running_an_up_to_date_home_runs_nothing_and_shows_the_summary(influcoder, refreshed_home):
    result = influcoder("run", "--home", refreshed_home)
    assert result.exit_code == 0
    assert "the plan is empty, nothing is run" in result.output
    store = Workspace.open(refreshed_home).store
    comparison = json.loads(
        store.path(store.require("encoder_comparison"), "comparison.json").read_text()
    )
    shown = " ".join(result.output.split())
    assert " ".join(comparison["headline"].split()) in shown
    for table in comparison["tables"]:
        assert table["title"] in shown
    counts = store.require("curation_report").summary
    assert (
        f"{3 * ROWS + 1} rows in = {counts['kept']} kept + {counts['dropped']} dropped + "
        f"{counts['quarantined']} quarantined"
    ) in shown
    with tiny_home.chosen(refreshed_home) as instance:
        assert instance.get_runs_count() == 1


def test_figures_that_are_not_of_the_encoder_in_use_are_said_to_be_another_one_s(
    influcoder, refreshed_home
):
    influcoder("rollback", "--home", refreshed_home, "--to", "untrained")
    shown = " ".join(influcoder("run", "--home", refreshed_home).output.split())
    said = "In use is the untrained encoder: the influence encoder of this comparison is version 1"
    assert f"{said}, which is not in use. The influence encoder" in shown
    assert shown.count("In use is the untrained encoder") > 1
    assert "encoder in use: the untrained encoder" in shown


def test_a_run_shows_cost_and_progress_and_a_broken_shard_until_it_is_mended(
    influcoder, refreshed_home
):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    broken = refreshed_home / "corpus" / "broken.parquet"
    broken.write_bytes(b"PAR1 is how it begins")

    first = influcoder("run", "--home", refreshed_home)
    assert first.exit_code == 1
    assert re.search(r"The plan: about \d+ s", first.output)
    assert re.search(r"\d\d:\d\d  corpus/a.jsonl: done \(valid 25", first.output)
    assert "corpus/broken.parquet: " in first.output
    assert f"{3 * ROWS + 2} rows in" in first.output

    again = influcoder("run", "--home", refreshed_home)
    assert again.exit_code == 1
    waits = "4 artifacts wait for what failed"
    assert f"{waits}; everything else is up to date" in again.output
    assert "corpus/broken.parquet: " in again.output
    assert "tried again when what it is made from changes" in again.output
    planned = influcoder("plan", "--home", refreshed_home)
    assert "corpus/broken.parquet: " in planned.output
    assert planned.output.splitlines()[-1] == f"{waits}."

    broken.unlink()
    mended = influcoder("run", "--home", refreshed_home)
    assert mended.exit_code == 0
    assert "broken" not in mended.output


def test_a_run_ends_with_the_checks_that_failed_and_what_the_report_warns_of(
    influcoder, refreshed_home
):
    query = tiny_home.queries()[0]
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", query)
    ran = influcoder("run", "--home", refreshed_home)
    assert ran.exit_code == 0
    said = ran.output.split("Have a look at this:")[1].splitlines()
    check = "  check no_query_in_corpus failed, influence_scores/a.jsonl: 1 queries are samples"
    alert = "  1 query is a sample of the corpus, so that each finds itself: "
    assert [line for line in said if line.startswith(check)]
    assert [line for line in said if line.startswith(alert)]
    again = influcoder("run", "--home", refreshed_home)
    assert check not in again.output
    assert alert in again.output


def test_a_run_ends_with_shards_without_a_sample_and_with_files_that_are_no_shards(
    influcoder, refreshed_home
):
    corpus = refreshed_home / "corpus"
    tiny_home.write_rows(corpus / "blank.jsonl", [{"prompt": "a", "response": " "}])
    for name in ("notes.txt", "more.json.bz2"):
        (corpus / name).write_text("")
    ran = influcoder("run", "--home", refreshed_home)
    assert ran.exit_code == 0
    status = influcoder("status", "--home", refreshed_home)
    for shown in (ran, status):
        words = " ".join(shown.output.split())
        assert "All rows of 1 shard are in quarantine: blank.jsonl. See why: " in words
        left_out = "2 files of the corpus folder left out, because of the name's ending: "
        assert f"{left_out}more.json.bz2, notes.txt. A shard ends in .jsonl, " in words
        assert "1 shard without the column label, which corpus.columns names for labels" in words


def test_what_failed_is_tried_again_when_someone_asks(influcoder, refreshed_home, monkeypatch):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with monkeypatch.context() as patch:
        interrupt(patch, "corpus", "a.jsonl", lambda: 1 / 0)
        assert influcoder("run", "--home", refreshed_home).exit_code == 1
    left = influcoder("run", "--home", refreshed_home)
    assert "corpus/a.jsonl: ZeroDivisionError: division by zero" in left.output
    mended = influcoder("run", "--home", refreshed_home, "--retry")
    assert mended.exit_code == 0
    assert f"{3 * ROWS + 2} rows in" in mended.output


def test_a_run_goes_on_with_what_changed_meanwhile(influcoder, refreshed_home, monkeypatch):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    new = refreshed_home / "corpus" / "new.jsonl"
    rows = tiny_home.rows("new")
    interrupt(monkeypatch, "corpus_embeddings", "a.jsonl", lambda: tiny_home.write_rows(new, rows))
    result = influcoder("run", "--home", refreshed_home)
    assert result.exit_code == 0
    assert f"{4 * ROWS + 2} rows in" in result.output
    assert tiny_home.plan(refreshed_home) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_ends_and_the_next_one_goes_on(
    influcoder, refreshed_home, monkeypatch, sent
):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with monkeypatch.context() as patch:
        interrupt(patch, "gradient_projections", "a.jsonl", lambda: signal.raise_signal(sent))
        ended = influcoder("run", "--home", refreshed_home)
    assert ended.exit_code == 130
    said = "Interrupted. What was made is kept: type `influcoder run` to go on from there.\n"
    assert ended.stderr.endswith(said)
    assert "gradient_projections/a.jsonl: starts" in ended.stdout
    assert "filtered_dataset/a.jsonl: starts" not in ended.stdout
    on = influcoder("run", "--home", refreshed_home)
    assert on.exit_code == 0
    assert "corpus/a.jsonl: starts" not in on.stdout
    assert f"{3 * ROWS + 2} rows in" in on.stdout
    assert tiny_home.plan(refreshed_home) == []


def test_redistilling_says_what_came_of_it(influcoder, refreshed_home, lose):
    nothing = influcoder("redistill", "--home", refreshed_home)
    assert nothing.exit_code == 0
    assert "none was trained" in nothing.output
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    lost = " ".join(influcoder("redistill", "--home", refreshed_home).output.split())
    assert "version 2 was not better, and nothing else has changed" in lost
    assert re.search(r"on the test split: untrained -?0\.\d{3}, .*challenger -?0\.\d{3}", lost)


def test_an_encoder_that_could_not_be_judged_has_not_lost():
    def made(asset: str, inputs: dict[str, str], **summary: object) -> Manifest:
        recipe = Recipe(inputs, {}, "1")
        return Manifest(asset, None, f"{asset} now", recipe, {}, 1, summary, "2026", "run")

    trained = made("influence_encoder", {}, version="3")
    merits = {"merit_challenger": 0.2, "merit_champion": 0.3}
    judged, before = (
        made("champion_encoder", {"influence_encoder": each}, version="2", **merits)
        for each in ("influence_encoder now", "influence_encoder before")
    )
    lost = "version 3 was not better, and nothing else has changed; on the test split: "
    assert outcome(trained, judged) == f"{lost}challenger 0.200, champion 0.300"
    for champion in (before, None):
        assert outcome(trained, champion).startswith("version 3 was not judged")


def test_a_redistillation_that_fails_does_not_say_that_nothing_has_changed(
    influcoder, done: Done, monkeypatch
):
    ran = Ran(["it failed"], [])
    monkeypatch.setattr("influcoder_assets.commands.driver.refresh_home", lambda *_: ran)
    failed = influcoder("redistill", "--home", done.home)
    assert failed.exit_code == 1
    assert "it failed" in failed.output
    assert "none was trained" not in failed.output


def test_a_rollback_moves_the_alias_and_says_what_is_out_of_date(influcoder, refreshed_home, win):
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    won = " ".join(influcoder("redistill", "--home", refreshed_home).output.split())
    assert "version 2 is in use now" in won
    back = influcoder("rollback", "--home", refreshed_home, "--to", "1")
    assert "The alias champion now means: 1." in back.output
    assert "`influcoder run` brings them up to date" in back.output
    assert Workspace.open(refreshed_home).registry.champion() == "1"
    untrained = influcoder("rollback", "--home", refreshed_home, "--to", "untrained")
    assert untrained.exit_code == 0
    assert Workspace.open(refreshed_home).registry.champion() is None
    wrong = influcoder("rollback", "--home", refreshed_home, "--to", "9")
    assert wrong.exit_code == 1
    assert "no version 9" in wrong.output


def test_without_another_encoder_there_is_nothing_to_roll_back_to(influcoder, refreshed_home):
    result = influcoder("rollback", "--home", refreshed_home)
    assert result.exit_code == 1
    assert "no other encoder was ever in use" in result.output


def test_ui_starts_dagster_on_the_home(influcoder, done: Done, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "call", lambda *a, **k: calls.append((a, k)) or 0)
    assert influcoder("ui", "--home", done.home, "--port", "3456").exit_code == 0
    ((command,), options) = calls[0]
    assert command[:4] == [sys.executable, "-m", "dagster", "dev"]
    assert command[-4:] == ["-h", "127.0.0.1", "-p", "3456"]
    assert options["env"]["DAGSTER_HOME"] == str(done.home)


def test_help_names_every_command(influcoder):
    output = influcoder("--help").output
    commands = ("init", "demo", "run", "plan", "ui", "redistill", "rollback", "status")
    audit = ("explain", "search", "sql", "export")
    assert all(name in output for name in (*commands, *audit))
