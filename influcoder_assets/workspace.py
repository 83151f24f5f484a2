"""One opened home: its settings, store and registry, and the facts that the plan is drawn from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from influcoder_assets.config import Settings, load_settings
from influcoder_assets.registry import Registry
from influcoder_lib import fingerprint, models
from influcoder_lib.errors import DataError
from influcoder_lib.refresh import Facts, Key, Node
from influcoder_lib.samples import SUFFIXES, find_shards
from influcoder_lib.store import Recipe, Store, write_atomically


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
        """The artifacts of this home."""
        return Store(self.data)

    @cached_property
    def registry(self) -> Registry:
        """The MLflow registry of this home."""
        return Registry(self.home)

    @property
    def data(self) -> Path:
        """Folder of everything that is made."""
        return self.home / "data"

    @cached_property
    def shards(self) -> dict[str, Path]:
        """Shard files by partition key.

        Raises:
            DataError: there is none, as in a new home or a folder that is not mounted.
        """
        path = self.settings.corpus.path
        shards = find_shards(path)
        if not shards:
            raise DataError(
                "The corpus has no shards.",
                where=f"folder {path}",
                allowed=f"files that end in {', '.join(SUFFIXES)}",
                fix="put at least one there, or set corpus.path",
            )
        return shards

    @cached_property
    def hashes(self) -> "FileHashes":
        """Fingerprints of files outside the store, remembered between runs."""
        return FileHashes(self.data / "file_hashes.json")

    @cached_property
    def target_files(self) -> models.ModelFiles:
        """Where the target model lies."""
        return models.locate(self.settings.target_model.path, self.home, self.hashes.of)

    @cached_property
    def encoder_files(self) -> models.ModelFiles:
        """Where the base encoder lies."""
        return models.locate(self.settings.encoder.path, self.home, self.hashes.of)

    def facts(self, nodes: Sequence[Node], settings: dict[str, dict[str, Any]]) -> Facts:
        """What is true now, for the plan. File hashes are remembered by size and time."""
        shards = {key: self.hashes.of(path) for key, path in self.shards.items()}
        sources = self._sources(self.hashes.of)
        self.hashes.save()
        recorded: dict[Key, tuple[Recipe, str]] = {}
        failed: dict[Key, str] = {}
        for node in nodes:
            for shard in shards if node.sharded else [None]:
                if manifest := self.store.current(node.name, shard):
                    recorded[node.name, shard] = (manifest.recipe, manifest.fingerprint)
                if failure := self.store.failure(node.name, shard):
                    failed[node.name, shard] = failure[0]
        return Facts(shards, sources, settings, recorded, failed)

    def _sources(self, hash_file: Callable[[Path], str]) -> dict[str, str]:
        behaviors = self.settings.behaviors
        adapter = self.settings.target_model.adapter
        adapter_files = sorted(adapter.path.glob("adapter_*")) if adapter.source == "peft" else []
        return {
            "queries": fingerprint.of_pairs(
                (name, _of_optional(each.queries, hash_file)) for name, each in behaviors.items()
            ),
            "known_good": fingerprint.of_pairs(
                (name, _of_optional(each.known_good, hash_file)) for name, each in behaviors.items()
            ),
            "overrides": _of_optional(self.settings.overrides, hash_file),
            "target_model": fingerprint.of_pairs(
                [
                    ("model", self.target_files.fingerprint(hash_file)),
                    *((path.name, hash_file(path)) for path in adapter_files),
                ]
            ),
            "base_encoder": self.encoder_files.fingerprint(hash_file),
        }


class FileHashes:
    """Fingerprints of files, remembered by path, size and modification time in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if path.is_file():
            self._known = json.loads(path.read_text())

    def of(self, path: Path) -> str:
        """Fingerprint of a file, read only if its size or time is not the remembered one."""
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = self._known.get(str(path))
        if entry is None or entry[:2] != stamp:
            entry = [*stamp, fingerprint.of_file(path)]
            self._known[str(path)] = entry
            self._changed = True
        return str(entry[2])

    def save(self) -> None:
        """Write what was learnt."""
        if self._changed:
            write_atomically(self.path, json.dumps(self._known, indent=0).encode())


def _of_optional(path: Path | None, hash_file: Callable[[Path], str]) -> str:
    if path is None:
        return "none"
    return hash_file(path) if path.is_file() else "missing"
