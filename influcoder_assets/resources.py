"""Dagster resources: the home that a run works in, and the lock that a refresh of it holds."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from influcoder_assets import lock
from influcoder_assets.home import find_home
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
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return Workspace.open(find_home(Path(self.path) if self.path else None))


class RefreshLock(dg.ConfigurableResource):
    """Held by a run from its first step to its last; another run of the same home waits."""

    home: dg.ResourceDependency[HomeResource]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RefreshLock"]:
        """Take the lock, and give it back when the run ends, however it ends."""
        own = lock.lock_of(self.home.open())
        if lock.is_held(own):
            log.info("another refresh of this home is running: waiting for it to end")
        with own:
            yield self


def resources_of(home: HomeResource) -> dict[str, Any]:
    """Everything that assets and jobs ask for, over one home."""
    return {"home": home, "lock": RefreshLock(home=home), "io_manager": dg.mem_io_manager}
