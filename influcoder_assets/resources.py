"""Dagster resources: the home that a run works in, with its store and its registry."""

import os
from pathlib import Path

import dagster as dg

from influcoder_assets.home import find_home
from influcoder_assets.workspace import Workspace


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
