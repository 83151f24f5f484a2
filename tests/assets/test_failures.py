"""What fails, or is killed, and how it is made good."""

import os
import signal
import subprocess
import sys
import threading
import time

import dagster as dg
import polars as pl

from influcoder_assets import lock
from influcoder_assets.lock import lock_of
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW, check_refresh, counts, interrupt, tick
from tests.assets.tiny_home import in_shard


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


KILLED = """
import dataclasses, os, signal, sys
from pathlib import Path
from influcoder_assets import definitions, driver, maker
whole = maker.MAKERS[sys.argv[2]]
def dies(task):
    if task.shard == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    whole.make(task)
maker.MAKERS[sys.argv[2]] = dataclasses.replace(whole, make=dies)
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
