"""What fails, or is killed, and how it is made good."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import dagster as dg
import polars as pl
import pytest

from influcoder_assets import checks, lock, maker, refresh
from influcoder_assets.commands.driver import refresh_home
from influcoder_assets.lock import lock_of
from influcoder_assets.refresh import redistill_job
from influcoder_assets.survey import Survey
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW, check_refresh, counts, interrupt, tick
from tests.assets.command import run
from tests.assets.tiny_home import in_shard

POSTGRES_OF_NOWHERE = """
storage:
  postgres:
    postgres_db: {hostname: {env: DAGSTER_PG_HOST}, username: u, password: p, db_name: dagster}
"""


def test_a_malformed_shard_fails_alone_and_is_left_alone_until_it_is_mended(refreshed_home):
    broken = refreshed_home / "corpus" / "broken.parquet"
    broken.write_bytes(b"PAR1 is how it begins")
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    again = tiny_home.refresh(refreshed_home)
    assert again.run.status == dg.DagsterRunStatus.FAILURE
    assert again.made == in_shard("new.jsonl")
    (failure,) = again.failures
    assert failure.startswith("corpus/broken.parquet: ")
    assert "parquet" in failure
    assert "Traceback" not in failure
    assert counts(refreshed_home)["warnings"] >= 1
    check_refresh(refreshed_home, set())
    pl.DataFrame(tiny_home.rows("mended")).write_parquet(broken)
    check_refresh(refreshed_home, in_shard("broken.parquet"))


def test_a_set_to_distil_from_never_mixes_two_teachers(refreshed_home, change_settings):
    store = Workspace.open(refreshed_home).store
    before = store.require("gradient_projections", "a.jsonl").summary["teacher"]
    (refreshed_home / "corpus" / "a.jsonl").write_bytes(b"\xff\xfe" + b"x\0" * 50)
    change_settings(refreshed_home, "target_model.adapter", {"rank": 2, "seed": 7})
    assert len(tiny_home.refresh(refreshed_home).failures) == 1
    store = Workspace.open(refreshed_home).store
    assert store.require("gradient_projections", "a.jsonl").summary["teacher"] == before
    frozen = store.require("distillation_set")
    assert frozen.summary["teacher"] != before
    candidates = pl.read_parquet(store.path(frozen, "candidates.parquet"))
    earlier = store.path(store.require("gradient_projections", "a.jsonl"), "candidates.parquet")
    left_out = set(pl.read_parquet(earlier)["sample_id"])
    assert len(candidates) > 0
    assert left_out.isdisjoint(candidates["sample_id"])


def test_a_failure_of_any_kind_is_remembered_until_someone_asks(refreshed_home, monkeypatch):
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    with monkeypatch.context() as patch:
        interrupt(patch, "influence_scores", "a.jsonl", fail)
        tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
        again = tiny_home.refresh(refreshed_home)
    assert again.failures == ["influence_scores/a.jsonl: ZeroDivisionError: by zero"]
    left = {("influence_scores", "a.jsonl"), ("filtered_dataset", "a.jsonl")}
    assert not again.made & left
    with dg.DagsterInstance.ephemeral() as instance:
        assert "influence_scores/a.jsonl" in tick(refreshed_home, instance).skip_message
    Workspace.open(refreshed_home).store.forget_failures()
    again = tiny_home.refresh(refreshed_home)
    assert left <= again.made
    assert tiny_home.plan(refreshed_home) == []


def test_what_failed_blocks_all_that_takes_it_as_it_is_to_the_end_of_the_run(
    refreshed_home, monkeypatch
):
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    assert run("rollback", "--to", "untrained", "--home", refreshed_home).exit_code == 0
    interrupt(monkeypatch, "corpus_embeddings", "a.jsonl", fail)
    again = tiny_home.refresh(refreshed_home)
    assert ("influence_scores", "c.parquet") in again.made
    assert not again.made & {("influence_scores", "a.jsonl"), ("filtered_dataset", "a.jsonl")}
    assert counts(refreshed_home)["rows_in"] == 2 * tiny_home.ROWS
    store = Workspace.open(refreshed_home).store
    report = store.path(store.require("curation_report"), "report.md").read_text()
    measured = report.partition("Fidelity by shard, worst first")[2]
    assert "| c\\.parquet |" in measured
    assert "| a\\.jsonl |" not in measured


@pytest.mark.parametrize(
    ("asset", "file"), [("behavior_queries", "rude"), ("calibration_scores", "known_good")]
)
def test_a_file_that_failed_is_read_again_once_longer_texts_are_allowed(
    refreshed_home, change_settings, asset, file
):
    row = {"prompt": "the cat", "response": "the cat sings . " * 20}
    tiny_home.append_row(refreshed_home / "queries" / f"{file}.jsonl", row)
    change_settings(refreshed_home, "corpus.max_characters", 100)
    with pytest.raises(DataError):
        tiny_home.make(Workspace.open(refreshed_home), asset)
    found = Survey.of(Workspace.open(refreshed_home))
    assert asset in found.failures
    change_settings(refreshed_home, "corpus.max_characters", 200_000)
    found = Survey.of(Workspace.open(refreshed_home))
    assert asset not in found.failures
    assert asset in {step.asset for step in found.steps}


def test_a_full_disk_is_not_held_against_what_was_to_be_made(refreshed_home, monkeypatch):
    def fail() -> None:
        raise RuntimeError("cannot write: No space left on device (os error 28)")

    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with monkeypatch.context() as patch:
        interrupt(patch, "influence_scores", "a.jsonl", fail)
        (said,) = tiny_home.refresh(refreshed_home).failures
    assert "The data folder cannot be written: No space left on device." in said
    check_refresh(
        refreshed_home,
        {
            ("influence_scores", "a.jsonl"),
            ("filtered_dataset", "a.jsonl"),
            ("curation_report", None),
        },
    )


def test_the_sensor_does_not_ask_again_at_once_for_a_plan_that_failed(refreshed_home, monkeypatch):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with tiny_home.chosen(refreshed_home) as instance:
        (asked,) = tick(refreshed_home, instance).run_requests
        failed = instance.create_run_for_job(refresh.refresh_job, tags=asked.tags)
        instance.report_run_failed(failed)
        assert (
            "the last run made nothing of this plan" in tick(refreshed_home, instance).skip_message
        )
        with monkeypatch.context() as patch:
            patch.setattr(refresh, "_PAUSE", -1)
            assert len(tick(refreshed_home, instance).run_requests) == 1
        tiny_home.append_row(refreshed_home / "corpus" / "c.jsonl", NEW_ROW)
        assert len(tick(refreshed_home, instance).run_requests) == 1


def test_a_memory_that_cannot_be_read_is_none(refreshed_home, change_settings):
    (refreshed_home / "reviewed.csv").write_text("sample_id,decision,note\n")
    change_settings(refreshed_home, "overrides", "reviewed.csv")
    check_refresh(refreshed_home, {("curation_report", None)})
    memories = [
        refreshed_home / "data" / name
        for name in (
            "file_hashes.json",
            "champion.json",
            "reviewed_shards.json",
            "manifests_in_force.jsonl",
        )
    ]
    for harm in (b"", b"{", b"[]\n", b"\xff\x00"):
        for memory in memories:
            assert memory.is_file()
            memory.write_bytes(harm)
        check_refresh(refreshed_home, set())


def test_a_registry_that_is_locked_is_named_and_the_next_run_goes_on(refreshed_home, monkeypatch):
    database = refreshed_home / "mlflow.db"
    holding = sqlite3.connect(database, isolation_level=None)

    def lock_it() -> None:
        holding.execute("BEGIN EXCLUSIVE")

    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with closing(holding), monkeypatch.context() as patch:
        interrupt(patch, "teacher_rankings", None, lock_it)
        first = tiny_home.refresh(refreshed_home, redistill_job)
    assert first.run.status == dg.DagsterRunStatus.FAILURE
    assert "influence_encoder: The MLflow registry does not answer: " in first.failures[0]
    assert "database is locked" in first.failures[0]
    assert str(database) in first.failures[0]
    assert "Traceback" not in first.failures[0]
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert {("influence_encoder", None), ("champion_encoder", None)} <= again.made
    assert tiny_home.plan(refreshed_home) == []


@pytest.mark.parametrize("broken", ["storge: {}\n", "a: [1\n", POSTGRES_OF_NOWHERE])
def test_dagster_s_records_that_cannot_be_opened_are_named(refreshed_home, broken, monkeypatch):
    monkeypatch.delenv("DAGSTER_PG_HOST", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(refreshed_home))
    (refreshed_home / "dagster.yaml").write_text(broken)
    (said,) = refresh_home(refreshed_home).failures
    assert said.startswith("Dagster's records cannot be opened: ")
    assert f"where: {refreshed_home / 'dagster.yaml'}" in said
    if broken == POSTGRES_OF_NOWHERE:
        assert "DAGSTER_PG_HOST" in said
    status = run("status", "--home", refreshed_home)
    assert status.exit_code == 1
    assert "Dagster's records cannot be opened" in status.output


KILLED = """
import dataclasses, os, signal, sys
from pathlib import Path
from influcoder_assets import maker
from influcoder_assets.commands import driver
whole = maker.makers()[sys.argv[2]]
def dies(task):
    if task.shard == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    whole.make(task)
maker.makers()[sys.argv[2]] = dataclasses.replace(whole, make=dies)
driver.refresh_home(Path(sys.argv[1]))
"""


def test_a_run_killed_half_way_is_ended_by_the_next_tick_which_makes_the_rest(
    refreshed_home, monkeypatch
):
    for name in ("a.jsonl", "new.jsonl"):
        tiny_home.append_row(refreshed_home / "corpus" / name, NEW_ROW)
    with tiny_home.chosen(refreshed_home) as instance:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(refreshed_home), "corpus_embeddings", "new.jsonl"],
            env={**os.environ, "DAGSTER_HOME": str(refreshed_home)},
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-500:]
        half_written = list((refreshed_home / "data").rglob("*.part"))
        assert len(half_written) == 1
        (run,) = instance.get_runs(limit=1)
        assert run.status == dg.DagsterRunStatus.STARTED
        assert tick(refreshed_home, instance).skip_message == "a refresh is running"
        monkeypatch.setattr(lock, "_GRACE_SECONDS", -1)
        assert len(tick(refreshed_home, instance).run_requests) == 1
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    made_before = {
        (asset, shard)
        for asset in ("corpus", "gradient_projections")
        for shard in ("a.jsonl", "new.jsonl")
    } | {("corpus_embeddings", "a.jsonl")}
    check_refresh(refreshed_home, (in_shard("a.jsonl") | in_shard("new.jsonl")) - made_before)
    assert not half_written[0].exists()


def test_a_run_that_its_process_never_started_is_in_nobody_s_way_for_ever(
    refreshed_home, monkeypatch
):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with tiny_home.chosen(refreshed_home) as instance:
        run = instance.create_run_for_job(refresh.refresh_job)
        assert run.status == dg.DagsterRunStatus.NOT_STARTED
        assert tick(refreshed_home, instance).skip_message == "a refresh is running"
        monkeypatch.setattr(lock, "_IMPORT_SECONDS", -1)
        assert len(tick(refreshed_home, instance).run_requests) == 1


def test_what_a_killed_run_made_but_did_not_tell_is_told_by_the_next(refreshed_home):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    workspace = Workspace.open(refreshed_home)
    with tiny_home.chosen(refreshed_home) as instance:
        killed = instance.create_run_for_job(refresh.refresh_job)
        made, _ = maker.make(
            workspace, maker.current_facts(workspace), "corpus", "a.jsonl", killed.run_id
        )
    again = tiny_home.refresh(refreshed_home)
    assert again.made == in_shard("a.jsonl")
    (told,) = [each for each in again.materialized if each.asset_key.path == ["corpus"]]
    assert told.tags["dagster/data_version"] == made.fingerprint
    checked = [each for each in again.evaluated if each.asset_key.path == ["corpus"]]
    assert [each.check_name for each in checked] == ["ids_unique"]
    check_refresh(refreshed_home, set())


def test_a_check_that_cannot_look_has_failed_and_stops_nothing(refreshed_home, monkeypatch):
    def fail(task: maker.Task) -> None:
        raise ZeroDivisionError("by zero")

    blind = [replace(each, look=fail) for each in checks.of("corpus")]
    monkeypatch.setattr(checks, "CHECKS", blind)
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    again = tiny_home.refresh(refreshed_home)
    assert not again.failures
    assert [(e.passed, e.description) for e in again.evaluated] == [
        (False, "ZeroDivisionError: by zero")
    ]


def test_a_refresh_at_work_is_left_alone_however_long_it_is_silent(refreshed_home, monkeypatch):
    monkeypatch.setattr(lock, "_GRACE_SECONDS", -1)
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    with dg.DagsterInstance.ephemeral() as instance:
        with lock_of(Workspace.open(refreshed_home)):
            assert tick(refreshed_home, instance).skip_message == "a refresh is running"
        assert len(tick(refreshed_home, instance).run_requests) == 1


def test_a_second_refresh_of_a_home_waits_for_the_first_to_end(refreshed_home):
    tiny_home.append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    planned: list[int] = []
    held = threading.Event()

    def first() -> None:
        with lock_of(Workspace.open(refreshed_home)):
            held.set()
            time.sleep(3)
            planned.append(len(tiny_home.plan(refreshed_home)))

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    again = tiny_home.refresh(refreshed_home)
    thread.join()
    assert planned == [7], "something was made while the lock was held"
    assert again.made == in_shard("a.jsonl")
