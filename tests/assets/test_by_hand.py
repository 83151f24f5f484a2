"""A run that was started by choosing assets, and is told from one that was killed by its lock."""

from pathlib import Path

import dagster as dg
import pytest

from influcoder_assets import lock
from influcoder_assets.events import PLAN
from influcoder_assets.refresh import shard_sensor
from influcoder_assets.resources import HomeResource
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.assets.changes import interrupt
from tests.assets.command import run as influcoder

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def by_hand(home: Path) -> dg.JobDefinition:
    return tiny_home.definitions(home).resolve_implicit_global_asset_job_def()


def begun(
    instance: dg.DagsterInstance, home: Path, status: dg.DagsterRunStatus, asset: str = PLAN
) -> str:
    """A run that Dagster takes to be alive; its id."""
    chosen = frozenset({dg.AssetKey(asset)})
    run = instance.create_run_for_job(by_hand(home), status=status, asset_selection=chosen)
    return run.run_id


def status_after_a_tick(
    instance: dg.DagsterInstance, home: Path, run_id: str
) -> dg.DagsterRunStatus:
    context = dg.build_sensor_context(
        instance=instance, resources={"home": HomeResource(path=str(home))}
    )
    shard_sensor(context)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("asset", ["behavior_queries", PLAN])
def test_a_run_that_makes_assets_by_hand_is_at_work_until_it_ends(
    new_home: Path, monkeypatch: pytest.MonkeyPatch, asset: str
):
    said: list[str] = []

    def look() -> None:
        said.append(lock.at_work(Workspace.open(new_home)))
        said.append(influcoder("gc", "--home", new_home).output)

    if asset == PLAN:
        monkeypatch.setattr("influcoder_assets.events.plan_metadata", lambda *_: look() or {})
    else:
        interrupt(monkeypatch, asset, None, look)
    with dg.DagsterInstance.ephemeral() as instance:
        chosen = [dg.AssetKey(asset)]
        made = by_hand(new_home).execute_in_process(instance=instance, asset_selection=chosen)
    assert made.success
    assert said[0] == "A run that materialises single assets of this home is under way."
    assert said[0] in said[1]
    assert lock.at_work(Workspace.open(new_home)) == ""
    assert not list((new_home / "data" / "by_hand").iterdir())


def test_a_killed_run_by_hand_is_ended_by_the_next_tick_and_one_at_work_is_left_alone(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
):
    with dg.DagsterInstance.ephemeral() as instance:
        killed, alive = (begun(instance, new_home, dg.DagsterRunStatus.STARTED) for _ in range(2))
        with lock.by_hand(new_home / "data", alive):
            assert status_after_a_tick(instance, new_home, killed) == dg.DagsterRunStatus.STARTED
            monkeypatch.setattr(lock, "_GRACE_SECONDS", -1)
            assert status_after_a_tick(instance, new_home, killed) == dg.DagsterRunStatus.FAILURE
            assert status_after_a_tick(instance, new_home, alive) == dg.DagsterRunStatus.STARTED
    assert not list((new_home / "data" / "by_hand").iterdir())


def test_a_run_that_still_imports_has_more_time(new_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_GRACE_SECONDS", -1)
    with dg.DagsterInstance.ephemeral() as instance:
        starting = begun(instance, new_home, dg.DagsterRunStatus.STARTING)
        assert status_after_a_tick(instance, new_home, starting) == dg.DagsterRunStatus.STARTING
        monkeypatch.setattr(lock, "_IMPORT_SECONDS", -1)
        assert status_after_a_tick(instance, new_home, starting) == dg.DagsterRunStatus.FAILURE


def test_a_run_of_another_code_location_is_none_of_ours(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
):
    @dg.asset
    def theirs() -> None: ...

    monkeypatch.setattr(lock, "_GRACE_SECONDS", -1)
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[theirs]).resolve_implicit_global_asset_job_def()
        other = instance.create_run_for_job(
            job,
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({dg.AssetKey("theirs")}),
        )
        assert status_after_a_tick(instance, new_home, other.run_id) == dg.DagsterRunStatus.STARTED
