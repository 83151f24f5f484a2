"""Services that go away while a home is being refreshed, and come back."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from influcoder_assets.commands.driver import refresh_home
from tests import services
from tests.assets import tiny_home
from tests.assets.changes import interrupt
from tests.chaos.conftest import Amount
from tests.chaos.undisturbed import check_same
from tests.services import kill, server


def needs_restarts(amount: Amount) -> None:
    if not amount.restarts:
        pytest.skip("starts servers several times, which takes minutes: make chaos")


def test_an_mlflow_server_gone_in_the_middle_of_a_run_is_named_and_the_next_run_goes_on(
    new_home, undisturbed, monkeypatch, tmp_path, amount
):
    needs_restarts(amount)
    command, address = services.mlflow(tmp_path / "mlflow", services.free_port())
    monkeypatch.setenv("DAGSTER_HOME", str(new_home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with server(command, address, kill) as mlflow, monkeypatch.context() as patch:
        interrupt(patch, "teacher_rankings", None, lambda: kill(mlflow))
        said = "\n".join(refresh_home(new_home).failures)
    assert "influence_encoder: The MLflow registry does not answer: " in said
    assert address in said
    assert "Traceback" not in said
    with server(command, address, kill):
        assert refresh_home(new_home).failures == []
        check_same(new_home, undisturbed.outcome)
    assert not (new_home / "mlflow.db").exists()


def test_dagster_killed_with_its_daemon_and_run_goes_on_where_it_was_when_it_is_back(
    new_home, undisturbed, amount, say
):
    """The whole of it, from the page to the run's worker, dies by SIGKILL each time that something
    more was made; the sensor, switched on once, starts the rest whenever Dagster is back."""
    needs_restarts(amount)
    port = services.free_port()
    command, url = services.dagster(new_home, port)
    for restart in range(amount.restarts):
        before = made(new_home)
        with server(command, url, kill):
            if restart == 0:
                services.switch_on(port, "refresh_sensor")
            wait_until(functools.partial(has_more_than, new_home, before), seconds=300)
        say(f"killed after {made(new_home)} artifacts, {before} before")
    assert tiny_home.plan(new_home) != []
    with server(command, url, kill):
        wait_until(lambda: tiny_home.plan(new_home) == [], seconds=600)
        wait_until(lambda: not unfinished(new_home), seconds=120)
    check_same(new_home, undisturbed.outcome)


def made(home: Path) -> int:
    """Number of artifacts that were published in a home."""
    return len(list((home / "data" / "manifests").rglob("*.json")))


def has_more_than(home: Path, artifacts: int) -> bool:
    return made(home) > artifacts


def unfinished(home: Path) -> list[dg.DagsterRun]:
    with tiny_home.chosen(home) as instance:
        return [run for run in instance.get_runs() if not run.is_finished]


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.5)
