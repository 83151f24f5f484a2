"""Dagster resources: the home that a run works in, and what the steps of one refresh share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from influcoder_assets import engine, environment, lock
from influcoder_assets.home import find_home
from influcoder_assets.storage import data_folder
from influcoder_assets.survey import Survey
from influcoder_assets.workspace import Workspace

log = logging.getLogger("influcoder_assets")


class HomeResource(dg.ConfigurableResource):
    """The home: a folder with influcoder.yaml and dagster.yaml. Empty: DAGSTER_HOME decides."""

    path: str = ""

    def open(self) -> Workspace:
        """The home's settings, store and registry, read anew.

        Raises:
            SettingsError: the folder is no home, or its settings have problems.
        """
        environment.expect_forks()
        return Workspace.open(self.folder)

    @property
    def folder(self) -> Path:
        """Where the home is.

        Raises:
            SettingsError: the folder is no home.
        """
        return find_home(Path(self.path) if self.path else None)


class HandRun(dg.ConfigurableResource):
    """A run that was started by choosing assets. It holds a lock from its first asset to its last,
    as a run that was killed does not."""

    home: dg.ResourceDependency[HomeResource]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["HandRun"]:
        """Take the run's own lock, and give it back when the run ends, however it ends."""
        with lock.by_hand(data_folder(self.home.folder), str(context.run_id)):
            yield self


class RefreshRun(dg.ConfigurableResource):
    """What the steps of one run share: the home's lock, what was surveyed, what could not be made.

    The lock is held from the first step to the last; another run of the same home waits.
    """

    home: dg.ResourceDependency[HomeResource]
    _survey: Survey | None = PrivateAttr(default=None)
    _failed: list[str] = PrivateAttr(default_factory=list)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RefreshRun"]:
        """Take the lock, and give it back when the run ends, however it ends."""
        workspace = self.home.open()
        own = lock.lock_of(workspace)
        if lock.is_held(own):
            log.info("another refresh of this home is running: waiting for it to end")
        with own, workspace.store.attended() as removed:
            if removed:
                log.info("removed %d files that a killed run left half written", removed)
            try:
                yield self
            finally:
                engine.stop()

    @property
    def survey(self) -> Survey:
        """What is true of the home, looked at when it is first asked for."""
        if self._survey is None:
            self._survey = Survey.of(self.home.open())
        return self._survey

    @property
    def failed(self) -> list[str]:
        """What could not be made so far, in words."""
        return self._failed


def resources_of(home: HomeResource) -> dict[str, Any]:
    """Everything that assets and jobs ask for, over one home."""
    return {
        "home": home,
        "run": RefreshRun(home=home),
        "by_hand": HandRun(home=home),
        "io_manager": dg.mem_io_manager,
    }
