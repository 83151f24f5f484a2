"""One opened home: its settings, store and registry, and the facts that the plan is drawn from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from influcoder_assets import sources
from influcoder_assets.config import SETTINGS_FILE, Settings, load_settings
from influcoder_assets.registry import Registry
from influcoder_assets.storage import data_folder, open_store
from influcoder_lib import models
from influcoder_lib.errors import DataError, ModelError, shown
from influcoder_lib.manifests import Key
from influcoder_lib.refresh import Facts, Node
from influcoder_lib.rows import RowStore, open_rows
from influcoder_lib.samples import SUFFIXES, Shards, find_shards
from influcoder_lib.store import Recipe, Store


@contextmanager
def named_by(setting: str) -> Iterator[None]:
    """Of a model that is refused, errors say which setting names it."""
    try:
        yield
    except ModelError as error:
        where = ", ".join(filter(None, (f"{setting} in {SETTINGS_FILE}", error.where)))
        raise ModelError(
            error.problem, where=where, allowed=error.allowed, fix=error.fix
        ) from error


@dataclass(frozen=True)
class Workspace:
    """Everything an asset may need of a home; cheap to open, so it is opened for every step."""

    home: Path
    settings: Settings

    @classmethod
    def open(cls, home: Path) -> "Workspace":
        """Read the home's settings.

        Raises:
            SettingsError: the settings have problems; all of them are listed.
        """
        return cls(home.resolve(), load_settings(home))

    @cached_property
    def store(self) -> Store:
        """The artifacts of this home, with what others have published at its location by now.

        Raises:
            StoreError: the location does not answer, or the data folder is no copy of it.
        """
        return open_store(self.home, self.settings.storage)

    def rows(self, kind: str, key: str) -> RowStore:
        """The vectors of one kind that are stored under a key."""
        return open_rows(self.data / "rows" / kind / key, self.store.remote)

    @cached_property
    def registry(self) -> Registry:
        """The MLflow registry of this home."""
        return Registry(self.home, self.settings.encoder.registered_model)

    @property
    def data(self) -> Path:
        """Folder of everything that is made."""
        return data_folder(self.home)

    @cached_property
    def found(self) -> Shards:
        """What the corpus folder holds."""
        return find_shards(self.settings.corpus.path)

    @property
    def shards(self) -> dict[str, Path]:
        """Shard files by partition key.

        Raises:
            DataError: there is none, as in a new home or a folder that is not mounted, or all that
                are there were refused.
        """
        if self.found.files:
            return self.found.files
        none = DataError(
            "The corpus has no shards.",
            where=f"folder {self.settings.corpus.path}",
            allowed=f"files that end in {', '.join(SUFFIXES)}",
            fix="put at least one there, or set corpus.path",
        )
        raise next(iter(self.found.refused.values()), none)

    def name_of(self, path: Path) -> str:
        """A shard's file as its rows name it: its path below the corpus folder."""
        folder = self.settings.corpus.path
        return path.name if path == folder else path.relative_to(folder).as_posix()

    @property
    def refused(self) -> dict[str, str]:
        """What in the corpus folder cannot be a shard, as what failed of `corpus`, and why."""
        return {f"corpus/{shown(name)}": str(e) for name, e in self.found.refused.items()}

    @cached_property
    def hashes(self) -> sources.FileHashes:
        """Fingerprints of files outside the store, remembered between runs."""
        return sources.FileHashes(self.data / "file_hashes.json")

    @cached_property
    def reviewed(self) -> sources.ReviewedShards:
        """Which of the reviewer's entries concern which shard, remembered between runs."""
        memory = self.data / "reviewed_shards.json"
        return sources.ReviewedShards(memory, self.store, self.settings.overrides)

    def remember(self) -> None:
        """Keep what was learnt of files and of the reviewer's list for the next process."""
        self.hashes.save()
        self.reviewed.save()

    @cached_property
    def target_files(self) -> models.ModelFiles:
        """Where the target model lies."""
        with named_by("target_model.path"):
            return models.locate(self.settings.target_model.path, self.home, self.hashes.of)

    @cached_property
    def encoder_files(self) -> models.ModelFiles:
        """Where the base encoder lies."""
        with named_by("encoder.path"):
            return models.locate(self.settings.encoder.path, self.home, self.hashes.of)

    def facts(self, nodes: Sequence[Node], settings: dict[str, dict[str, Any]]) -> Facts:
        """What is true now, for the plan. File hashes are remembered by size and time."""
        found = {key: sources.of_shard(self, path) for key, path in self.shards.items()}
        shards = {key: content for key, content in found.items() if content != "missing"}
        whole = {name: look(self) for name, look in sources.WHOLE.items()}
        by_shard = {name: look(self, shards) for name, look in sources.BY_SHARD.items()}
        self.remember()
        recorded: dict[Key, tuple[Recipe, str]] = {}
        for node in nodes:
            for shard in shards if node.sharded else [None]:
                if manifest := self.store.current(node.name, shard):
                    recorded[node.name, shard] = (manifest.recipe, manifest.fingerprint)
        self.store.remember()
        failed = {key: recipe for key, (recipe, _) in self.store.failures().items()}
        damaged = frozenset(self.store.damage())
        return Facts(shards, whole, settings, recorded, failed, by_shard, damaged)
