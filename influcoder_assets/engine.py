"""Where the shards of an asset are made: one after another in this process, or as tasks of Ray.

An engine gives a function that is called as `maker.make` is, and the assets do not know which. Ray
comes with the extra `ray`; its workers open the home at the path that it has here, so machines of
one cluster share a file system.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from influcoder_assets import environment, maker
from influcoder_assets.config import EngineSettings, Settings
from influcoder_assets.maker import Task
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import SettingsError, StoreError
from influcoder_lib.manifests import label
from influcoder_lib.refresh import Facts
from influcoder_lib.store import Draft, Manifest

# A task whose process was killed is run again this often; one that raised an error never is.
_RETRIES = 3

_Made = tuple[Manifest, Draft, dict[str, str]]


class Making(Protocol):
    """Makes one artifact, or waits until it is made, as `maker.make` does."""

    def __call__(
        self, workspace: Workspace, facts: Facts, asset: str, shard: str | None, run_id: str
    ) -> tuple[Manifest, Task]: ...


def start(
    workspace: Workspace, facts: Facts, asset: str, shards: Sequence[str | None], run_id: str
) -> Making:
    """Begin with the shards of an asset, as the settings say; the function that is returned gives
    them one by one, in any order, and makes what was not begun with.

    Raises:
        SettingsError: the engine is Ray, which is not installed or cannot be reached.
    """
    named = [shard for shard in shards if shard is not None]
    if workspace.settings.engine.kind == "local" or not named:
        return maker.make
    # With torch, which takes seconds to import.
    from influcoder_lib import hardware

    ray = _connected(workspace.settings.engine)
    task = ray.remote(max_retries=_RETRIES)(make_at)
    begun = {
        shard: task.remote(
            workspace.home,
            workspace.settings,
            facts.about(shard, maker.makers()),
            asset,
            shard,
            run_id,
            hardware.threads(),
        )
        for shard in named
    }

    def collect(
        workspace: Workspace, facts: Facts, asset: str, shard: str | None, run_id: str
    ) -> tuple[Manifest, Task]:
        waiting = begun.pop(str(shard), None)
        if waiting is None:
            return maker.make(workspace, facts, asset, shard, run_id)
        try:
            made: _Made = ray.get(waiting)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise StoreError(
                f"Ray could not finish this: {error}",
                where=label((asset, shard)),
                fix="look at the memory and the logs of its workers; the next run tries it again",
            ) from error
        return maker.taken(workspace, facts, *made, run_id)

    return collect


def stop() -> None:
    """End what Ray runs for this process, or leave the cluster that it is connected to."""
    try:
        import ray
    except ImportError:
        return
    ray.shutdown()


def make_at(
    home: Path, settings: Settings, facts: Facts, asset: str, shard: str, run_id: str, threads: int
) -> _Made:
    """Make one artifact in another process, by the settings that the facts were gathered with, and
    with as many threads: sums depend on their number."""
    from influcoder_lib import hardware

    environment.expect_forks()
    hardware.use_threads(threads)
    manifest, task = maker.make(Workspace(home, settings), facts, asset, shard, run_id)
    return manifest, task.draft, task.markdown


def _connected(settings: EngineSettings) -> Any:
    """Ray, connected to the cluster of the settings, or to one that is started on this machine."""
    environment.silence()
    try:
        import ray
    except ImportError:
        raise SettingsError(
            "The engine is Ray, which is not installed.",
            where="engine.kind",
            fix='type `pip install -e ".[ray]"` in the folder of Influcoder, or set engine.kind to'
            " local",
        ) from None
    if ray.is_initialized():
        return ray
    try:
        if settings.address:
            ray.init(address=settings.address)
        else:
            ray.init(
                address="local",
                num_cpus=settings.workers,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"The Ray cluster does not answer: {error}",
            where="engine.address",
            fix="start it, set engine.address to where it is, or set engine.kind to local",
        ) from error
    return ray
