"""The MLflow registry of a home: experiments, runs, encoder versions, and the alias `champion`."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from influcoder_assets import environment
from influcoder_lib.errors import StoreError

environment.silence()

ALIAS = "champion"
# Of the registered model: no version is in use, because somebody wants it so.
_GIVEN_UP = "untrained_in_use"

# What is not there is an invalid parameter to one of MLflow's stores, and missing to another.
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
# MLflow keeps a deleted run for a while, and refuses to write to it.
_DELETED = "deleted"

_FILES = "mlartifacts"
# The columns of MLflow's tables that say where files are.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Registry:
    """Talks to MLflow; every method is one small transaction. `model` is the name of the registered
    model that all versions are of, and of the experiment that their runs are in.

    Raises:
        StoreError: the registry cannot be reached.
    """

    home: Path
    model: str

    @property
    def address(self) -> str:
        """MLflow's tracking and registry URI: MLFLOW_TRACKING_URI, else SQLite in the home."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def shown_address(self) -> str:
        """The address as it may stand in a message: without a password."""
        return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", self.address)

    @property
    def database(self) -> Path | None:
        """The SQLite file, where the registry is one in the home."""
        return None if os.environ.get("MLFLOW_TRACKING_URI") else self.home / "mlflow.db"

    @cached_property
    def client(self) -> Any:
        """The MLflow client."""
        from mlflow import MlflowClient

        if self.database is not None and self.database.is_file():
            with self._reached():
                _follow(self.database, self._own_files)
        return MlflowClient(self.address, self.address)

    def log_run(
        self,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, list[tuple[int, float]]],
        tags: Mapping[str, str],
        folders: Mapping[str, Path],
        files: Sequence[Path],
    ) -> str:
        """Log one run, finished or failed: params, metrics by step, folders and files; returns its
        id."""
        with self._reached(), self._run(name, tags) as run_id:
            for key, value in params.items():
                self.client.log_param(run_id, key, value)
            for key, series in metrics.items():
                for step, value in series:
                    self.client.log_metric(run_id, key, value, step=step)
            for target, folder in folders.items():
                self.client.log_artifacts(run_id, str(folder), target)
            for path in files:
                self.client.log_artifact(run_id, str(path))
        return run_id

    @contextmanager
    def _run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A run to log to; however that ends, the run does not stand there as running."""
        run = self.client.create_run(self._experiment(), run_name=name, tags=dict(tags))
        run_id = str(run.info.run_id)
        try:
            yield run_id
        except BaseException:
            with suppress(Exception):
                self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id)

    def add(self, run_id: str, metrics: Mapping[str, float], folder: Path, target: str) -> bool:
        """Add metrics, and a folder's files below `target`, to a run; whether it is there."""
        run = self._found(lambda: self.client.get_run(run_id))
        if run is None or run.info.lifecycle_stage == _DELETED:
            return False
        with self._reached():
            for key, value in metrics.items():
                self.client.log_metric(run_id, _metric_name(key), value)
            self.client.log_artifacts(run_id, str(folder), target)
        return True

    def register(self, run_id: str, artifact: str, tags: Mapping[str, str]) -> str:
        """Register a run's artifact folder as the next version of the encoder; returns it."""
        with self._reached():
            self._make_model()
            source = f"{self.client.get_run(run_id).info.artifact_uri}/{artifact}"
            version = self.client.create_model_version(self.model, source, run_id, tags=dict(tags))
        return str(version.version)

    def promote(self, version: str) -> None:
        """Point the alias `champion` at a version.

        Raises:
            StoreError: there is no such version, or the registry cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        with self._reached():
            try:
                self.client.set_registered_model_alias(self.model, ALIAS, version)
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
                raise StoreError(
                    f"The registry has no version {version} of {self.model}.",
                    where=self.shown_address,
                    fix="MLflow's own UI shows the versions, and so does"
                    ' `influcoder sql "SELECT version, merit, in_use FROM encoders"`',
                ) from error
            self.client.delete_registered_model_tag(self.model, _GIVEN_UP)

    def demote(self) -> None:
        """Take the alias `champion` away: the untrained encoder is in use."""
        champion = self.champion()
        with self._reached():
            self._make_model()
            self.client.set_registered_model_tag(self.model, _GIVEN_UP, "true")
            if champion is not None:
                self.client.delete_registered_model_alias(self.model, ALIAS)

    def is_given_up(self) -> bool:
        """Whether `demote` was the last word on which version is in use."""
        found = self._found(lambda: self.client.get_registered_model(self.model))
        return found is not None and _GIVEN_UP in found.tags

    def holds(self, version: str, encoder: str) -> bool:
        """Whether the version is there, and is the encoder with this fingerprint."""
        found = self._found(lambda: self.client.get_model_version(self.model, version))
        return found is not None and found.tags.get("fingerprint") == encoder

    def champion(self) -> str | None:
        """The version that the alias `champion` points at; None without one."""
        found = self._found(lambda: self.client.get_model_version_by_alias(self.model, ALIAS))
        return None if found is None else str(found.version)

    def registered(self, tags: Mapping[str, str]) -> tuple[str, str] | None:
        """The newest version that has all these tags, and the run that it is of."""
        if self.database is not None and not self.database.is_file():
            return None
        with self._reached():
            versions = self.client.search_model_versions(f"name='{self.model}'")
        found = [
            (int(each.version), str(each.run_id))
            for each in versions
            if tags.items() <= each.tags.items()
        ]
        return (str(max(found)[0]), max(found)[1]) if found else None

    def download(self, version: str, target: Path) -> Path:
        """Copy a version's files below `target`; returns their folder."""
        from mlflow.artifacts import download_artifacts

        with self._reached():
            source = self.client.get_model_version_download_uri(self.model, version)
            return Path(download_artifacts(artifact_uri=source, dst_path=str(target)))

    def _found(self, ask: Callable[[], Any]) -> Any:
        """What MLflow answers; None where there is no such thing, or no database yet."""
        if self.database is not None and not self.database.is_file():
            return None
        from mlflow.exceptions import MlflowException

        with self._reached():
            try:
                return ask()
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def _make_model(self) -> None:
        """Have the registered model that all versions are of."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Says in one way what MLflow, its database and its server each say in their own."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (
            MlflowException,
            SQLAlchemyError,
            sqlite3.Error,
            OSError,
        ) as error:
            said = str(error).partition("\n")[0].replace(self.address, self.shown_address)
            raise StoreError(
                f"The MLflow registry does not answer: {said}",
                where=self.shown_address,
                fix="start it, end what keeps it locked, or set MLFLOW_TRACKING_URI to where it is;"
                " then run again",
            ) from error

    @property
    def _own_files(self) -> str:
        """Where files of runs are kept, unless a server keeps them."""
        return (self.home / _FILES).as_uri()

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.model)
        if found is not None:
            return str(found.experiment_id)
        # A server keeps files itself; those of a database's experiment without a location of its
        # own go into the working directory.
        is_server = self.address.startswith(("http://", "https://"))
        folder = None if is_server else self._own_files
        return str(self.client.create_experiment(self.model, artifact_location=folder))


def _follow(database: Path, files: str) -> None:
    """Have a home's own database say where its files are now: MLflow writes down absolute places,
    which are wrong once the home was moved."""
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not tables >= {table for table, _ in _PLACES}:
            return
        said = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        for (before,) in said.fetchall():
            if before == files or not str(before).endswith(f"/{_FILES}"):
                continue
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) IN (?, ? || '/')",
                    (files, len(before) + 1, len(before) + 1, before, before),
                )


def _metric_name(text: str) -> str:
    """The text with what MLflow does not allow in a metric's name replaced by `_`."""
    return re.sub(r"[^\w\-./ ]", "_", text)
