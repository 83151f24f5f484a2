"""Fingerprints of what lies outside the graph: files, models, the reviewer's list, the registry.

A source is looked at by name, and whatever is costly to look at is remembered in the home.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from influcoder_lib import fingerprint
from influcoder_lib.atomic import write_atomically
from influcoder_lib.curation.decisions import Override, read_overrides
from influcoder_lib.errors import DamageError, DataError, StoreError
from influcoder_lib.store import Manifest, Store
from influcoder_lib.tables import scan_table

if TYPE_CHECKING:
    from influcoder_assets.workspace import Workspace

NONE = "none"

# Of the files that things are remembered in; to be moved when what stands in them changes.
_FORM = 1
_SAMPLES = "samples.parquet"


class FileHashes:
    """Fingerprints of files, remembered by path, size and modification time in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = _recall(path)
        self._changed = False

    def of(self, path: Path) -> str:
        """Fingerprint of a file, read only if its size or time is not the remembered one.

        Raises:
            DataError: the file cannot be read.
        """
        with _reading(path):
            return self.look(path)

    def look(self, path: Path) -> str:
        """As `of`, for who takes a file that cannot be read for what it is: an OSError."""
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = self._known.get(str(path))
        if entry is None or entry[:2] != stamp:
            entry = [*stamp, fingerprint.of_file(path)]
            self._known[str(path)] = entry
            self._changed = True
        return str(entry[2])

    def forget(self) -> None:
        """Remember nothing: every file is read again."""
        self._known.clear()

    def save(self) -> None:
        """Write what was learnt."""
        if self._changed:
            _remember(self.path, self._known)


class ReviewedShards:
    """Which of the reviewer's entries concern which shard, remembered in one JSON file.

    The list is parsed once, and a shard is read only if it, or the list, has changed.
    """

    def __init__(self, path: Path, store: Store, overrides: Path | None) -> None:
        self.path = path
        self.store = store
        self.overrides = overrides
        self._list = ""
        self._entries: dict[str, Override] | None = None
        self._known: dict[str, list[Any]] = {}
        self._changed = False

    def of(self, shards: Iterable[str], list_hash: str) -> dict[str, str]:
        """Fingerprint, for each shard, of the entries whose sample it holds; `none` without any.

        A list that cannot be read concerns every shard: there it is an error that says why. Of a
        shard whose stored samples are damaged it is `damaged` until they are made anew.
        """
        if self.overrides is None:
            return dict.fromkeys(shards, NONE)
        if list_hash != self._list:
            self._parse(self.overrides, list_hash)
        if self._entries is None:
            return dict.fromkeys(shards, f"unreadable {list_hash}")
        made = {shard: self.store.current("corpus", shard) for shard in shards}
        if new := [
            manifest for manifest in made.values() if manifest and not self._knows(manifest)
        ]:
            self._look(new)
        return {shard: self._part(manifest, self._entries) for shard, manifest in made.items()}

    def unmatched(self, shards: Sequence[str], list_hash: str) -> list[str]:
        """Sample ids of the entries that concern none of the shards, in the list's order; none of
        a list that cannot be read."""
        self.of(shards, list_hash)
        ids = (self._known[shard][1] for shard in shards if shard in self._known)
        found = set(chain.from_iterable(ids))
        return [sample_id for sample_id in self._entries or () if sample_id not in found]

    def save(self) -> None:
        """Write what was learnt."""
        if self._changed:
            _remember(self.path, {"list": self._list, "concerned": self._known})
            self._changed = False

    def _parse(self, overrides: Path, list_hash: str) -> None:
        try:
            self._entries = {entry.sample_id: entry for entry in read_overrides(overrides)}
        except DataError:
            self._entries = None
        record = _recall(self.path)
        self._known = record.get("concerned", {}) if record.get("list") == list_hash else {}
        self._list = list_hash

    def _knows(self, manifest: Manifest) -> bool:
        return self._known.get(str(manifest.shard), [""])[0] == manifest.fingerprint

    def _part(self, manifest: Manifest | None, entries: Mapping[str, Override]) -> str:
        if manifest is None:
            return NONE
        if not self._knows(manifest):
            return "damaged"
        return _of_entries([entries[each] for each in self._known[str(manifest.shard)][1]])

    def _look(self, manifests: Sequence[Manifest]) -> None:
        """Learn which entries concern these shards. Checking every byte of a corpus takes long, so
        that is done only where reading has failed; damage is recorded by it."""
        try:
            self.store.bring((manifest, _SAMPLES) for manifest in manifests)
            self._scan(manifests)
        except (DamageError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            self._scan([manifest for manifest in manifests if self._is_whole(manifest)])

    def _is_whole(self, manifest: Manifest) -> bool:
        try:
            self.store.path(manifest, _SAMPLES)
        except DamageError:
            return False
        return True

    def _scan(self, manifests: Sequence[Manifest]) -> None:
        places = {str(self.store.place(m) / _SAMPLES): m for m in manifests}
        if not places:
            return
        found = (
            scan_table(list(map(Path, places)), include_file_paths="place")
            .filter(pl.col("sample_id").is_in(list(self._entries or ())))
            .select("place", "sample_id")
            .collect()
        )
        concerned: dict[str, list[str]] = {place: [] for place in places}
        for place, sample_id in found.iter_rows():
            concerned[place].append(sample_id)
        for place, manifest in places.items():
            self._known[str(manifest.shard)] = [manifest.fingerprint, concerned[place]]
        self._changed = True


def look_at(workspace: "Workspace", name: str, shard: str | None) -> str:
    """Fingerprint of a source as it is now, or of the part of it that concerns the shard."""
    if name == "shard":
        return of_shard(workspace, workspace.shards[str(shard)])
    if name in BY_SHARD:
        return BY_SHARD[name](workspace, [str(shard)])[str(shard)]
    return WHOLE[name](workspace)


def of_shard(workspace: "Workspace", path: Path) -> str:
    """Fingerprint of a shard's file; one that cannot be read fails when it is made."""
    try:
        return workspace.hashes.look(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _queries(workspace: "Workspace") -> str:
    behaviors = workspace.settings.behaviors
    return _of_files(workspace, {name: each.queries for name, each in behaviors.items()})


def _known_good(workspace: "Workspace") -> str:
    behaviors = workspace.settings.behaviors
    return _of_files(workspace, {name: each.known_good for name, each in behaviors.items()})


def _target_model(workspace: "Workspace") -> str:
    adapter = workspace.settings.target_model.adapter
    files = sorted(adapter.path.glob("adapter_*")) if adapter.source == "peft" else []
    hash_file = workspace.hashes.of
    return fingerprint.of_pairs(
        [
            ("model", workspace.target_files.fingerprint(hash_file)),
            *((path.name, hash_file(path)) for path in files),
        ]
    )


def _base_encoder(workspace: "Workspace") -> str:
    return workspace.encoder_files.fingerprint(workspace.hashes.of)


def _champion(workspace: "Workspace") -> str:
    """The version with the alias; of a database that has not changed, the remembered one: loading
    MLflow takes seconds.

    Raises:
        StoreError: the registry does not hold the encoder in use.
    """
    champion = workspace.store.current("champion_encoder")
    in_use = (champion.summary["version"], champion.summary["encoder"]) if champion else None
    database = workspace.registry.database
    if database is None or not database.is_file():
        return _checked_champion(workspace, in_use)
    memory, content = workspace.data / "champion.json", workspace.hashes.of(database)
    looked_at = [workspace.registry.model, content, *(in_use or ())]
    record = _recall(memory)
    if record.get("looked_at") != looked_at:
        record = {"looked_at": looked_at, "version": _checked_champion(workspace, in_use)}
        _remember(memory, record)
    return str(record["version"])


def _checked_champion(workspace: "Workspace", in_use: tuple[str | None, str] | None) -> str:
    """The version with the alias. Another registry has none, and would take the encoder in use,
    given by version and fingerprint, away without a word."""
    registry = workspace.registry
    version, encoder = in_use or (None, "")
    if version is not None and not (registry.holds(version, encoder) or registry.is_given_up()):
        raise StoreError(
            f"The encoder in use is version {version} of an MLflow registry that is not here.",
            where=registry.shown_address,
            fix="set MLFLOW_TRACKING_URI to the registry that holds it, or bring its database back;"
            " to begin anew with the registry that is here, type"
            " `influcoder rollback --to untrained`",
        )
    return registry.champion() or NONE


def _reviewers_list(workspace: "Workspace") -> str:
    return _of_optional(workspace, workspace.settings.overrides)


def _file(workspace: "Workspace", shards: Iterable[str]) -> dict[str, str]:
    """Not a fingerprint but the name itself: every row of the shard carries it."""
    return {shard: workspace.name_of(workspace.shards[shard]) for shard in shards}


def _overrides(workspace: "Workspace", shards: Iterable[str]) -> dict[str, str]:
    return workspace.reviewed.of(shards, _reviewers_list(workspace))


def _shards(workspace: "Workspace") -> str:
    """Their names: the merged assets say of which of them they lack."""
    return fingerprint.of_json(sorted(workspace.shards))


WHOLE: Mapping[str, Callable[["Workspace"], str]] = {
    "queries": _queries,
    "known_good": _known_good,
    "target_model": _target_model,
    "base_encoder": _base_encoder,
    "champion": _champion,
    "reviewers_list": _reviewers_list,
    "shards": _shards,
}
BY_SHARD: Mapping[str, Callable[["Workspace", Iterable[str]], dict[str, str]]] = {
    "file": _file,
    "overrides": _overrides,
}
DEPENDENT: Mapping[str, tuple[str, ...]] = {"corpus": ("overrides",)}
"""By asset, the sources whose part for a shard depends on what was made of that shard."""


def _recall(path: Path) -> dict[str, Any]:
    """What was remembered; nothing where it cannot be read, or another version wrote it."""
    try:
        record = json.loads(path.read_text())
        return record["remembered"] if record["form"] == _FORM else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(path: Path, what: Mapping[str, Any]) -> None:
    record = {"form": _FORM, "remembered": what}
    write_atomically(path, json.dumps(record, indent=0).encode())


def _of_files(workspace: "Workspace", files: Mapping[str, Path | None]) -> str:
    return fingerprint.of_pairs(
        (name, _of_optional(workspace, path)) for name, path in files.items()
    )


def _of_optional(workspace: "Workspace", path: Path | None) -> str:
    if path is None:
        return NONE
    with _reading(path):
        return workspace.hashes.look(path) if path.is_file() else "missing"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says which file cannot be read."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"A file cannot be read: {error.strerror or error}.",
            where=str(path),
            fix="put it there, or give whoever runs this the right to read it",
        ) from error


def _of_entries(entries: list[Override]) -> str:
    if not entries:
        return NONE
    return fingerprint.of_json(sorted([e.sample_id, e.decision, e.note] for e in entries))
