"""What a manifest says and how it names things, and finding the ones in force among many.

A home has a few manifests a shard, so reading every one of them is what a plan would mostly do.
Those in force are remembered in one file. A manifest is taken from there only if neither its file
nor its folder has changed since; forgetting the file costs time and nothing else.
"""

import functools
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from influcoder_lib import fingerprint
from influcoder_lib.atomic import part_of
from influcoder_lib.errors import DamageError, StoreError

SCHEMA = 1
# In place of `.json`, the end of the name of a manifest that cannot be read and was set aside.
ASIDE = ".json.unreadable"
# File systems tell times apart by up to this: what changed so lately may change again unseen.
_SETTLED_NS = 2 * 10**9
_SOURCE = "source:"

Key = tuple[str, str | None]
"""Asset and shard of an artifact; no shard where it has one artifact in all."""


def label(key: Key) -> str:
    """An artifact's name in recipes and messages: `asset`, or `asset/shard`."""
    asset, shard = key
    return f"{asset}/{shard}" if shard else asset


def key_of(label: str) -> Key:
    """The artifact that has this name."""
    asset, _, shard = label.partition("/")
    return asset, shard or None


def source_input(source: str) -> str:
    """The name in recipes of a source, which is an input that is no artifact."""
    return _SOURCE + source


def source_of(name: str) -> str | None:
    """The source that has this name in recipes; None if it is the name of an artifact."""
    return name.removeprefix(_SOURCE) if name.startswith(_SOURCE) else None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an artifact's content: equal recipes make equal artifacts.

    `inputs` maps the name of an input (see `label` and `source_input`) to its content fingerprint.
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    code_version: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of inputs, settings and code version."""
        return fingerprint.of_json(
            {
                "inputs": dict(self.inputs),
                "settings": dict(self.settings),
                "code_version": self.code_version,
            }
        )


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and what it was made from; `files` maps name to (bytes, fingerprint)."""

    asset: str
    shard: str | None
    fingerprint: str
    recipe: Recipe
    files: Mapping[str, tuple[int, str]]
    rows: int
    summary: Mapping[str, Any]
    created: str
    run_id: str
    number: int = 0
    schema: int = SCHEMA

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(size for size, _ in self.files.values())


class _Known(NamedTuple):
    """A manifest in force: the times (ns) of its folder and file, and the file's name."""

    folder: int
    name: str
    file: int
    manifest: Manifest


class ManifestsInForce:
    """The manifest with the highest number in each folder below one root."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root / 'manifests'}{os.sep}"
        self._memory = root / "manifests_in_force.jsonl"
        self._known: dict[str, _Known] = {}
        self._unwritten: set[str] = set()
        self._lines = 0
        self._load()

    def of(self, place: str) -> Manifest | None:
        """The manifest in force below `ASSET/SHARD`; None where there is none.

        Raises:
            DamageError: it cannot be read; `where` is its path.
            StoreError: it is of another schema.
        """
        folder = self._root + place
        changed = _changed(folder)
        if changed is None:
            return None
        known = self._known.get(place)
        if known and known.folder == changed and _changed(f"{folder}/{known.name}") == known.file:
            return known.manifest
        return self._look(place, changed)

    def save(self) -> None:
        """Append what was learnt to the file; write it anew when most of its lines are outdated."""
        if not self._unwritten:
            return
        self._lines += len(self._unwritten)
        anew = self._lines > 2 * len(self._known)
        places = sorted(self._known if anew else self._unwritten)
        text = "".join(_written(place, self._known[place]) for place in places)
        with suppress(OSError):
            if anew:
                self._lines = len(places)
                part = part_of(self._memory)
                part.write_text(text)
                part.replace(self._memory)
            else:
                with self._memory.open("a") as stream:
                    stream.write(text)
        self._unwritten.clear()

    def _look(self, place: str, changed: int) -> Manifest | None:
        paths = numbered(Path(self._root + place))
        if not paths:
            return None
        file = paths[-1].stat().st_mtime_ns
        manifest = read_manifest(paths[-1])
        if time.time_ns() - max(changed, file) > _SETTLED_NS:
            self._known[place] = _Known(changed, paths[-1].name, file, manifest)
            self._unwritten.add(place)
        return manifest

    def _load(self) -> None:
        try:
            lines = self._memory.read_text().splitlines()
            for place, folder, name, file, record in json.loads(f"[{','.join(lines)}]"):
                if record["schema"] == SCHEMA:
                    self._known[place] = _Known(folder, name, file, _of_record(record))
            self._lines = len(lines)
        except (FileNotFoundError, NotADirectoryError):
            return
        except (StoreError, ValueError, KeyError, TypeError, AttributeError):
            self._known.clear()
            self._memory.unlink(missing_ok=True)


@functools.lru_cache(maxsize=16)
def manifests_in_force(root: Path) -> ManifestsInForce:
    """Those below a root; read from the disk once a process."""
    return ManifestsInForce(root)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        DamageError: it cannot be read.
        StoreError: it is of another schema.
    """
    return _parse(path, path.stat().st_mtime_ns)


def numbered(folder: Path) -> list[Path]:
    """A folder's numbered files in the order of their numbers; of no folder, none."""
    try:
        return sorted(path for path in folder.iterdir() if path.stem.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def next_number(folder: Path) -> int:
    """The number after all that were given in a folder, also to manifests that were set aside."""
    aside = (int(path.name.removesuffix(ASIDE)) for path in folder.glob(f"*{ASIDE}"))
    return max([0, *aside, *(int(path.stem) for path in numbered(folder))]) + 1


@functools.lru_cache(maxsize=1 << 12)
def _parse(path: Path, _modified: int) -> Manifest:
    """A manifest never changes, so it is parsed once; a time tells one put in its place."""
    try:
        record = json.loads(path.read_text())
        schema = record["schema"]
        if schema != SCHEMA:
            is_newer = schema > SCHEMA
            raise StoreError(
                f"This manifest was written by {'a newer' if is_newer else 'an older'} version of"
                f" influcoder, with schema {schema}.",
                where=str(path),
                allowed=f"schema {SCHEMA}",
                fix="install that version, or a newer one"
                if is_newer
                else "use the version that wrote it, or start a new home",
            )
        return _of_record(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(
            f"This manifest cannot be read: {error}.",
            where=str(path),
            fix="type `influcoder plan --verify`, which sets it aside; what is in force is made"
            " anew, of a past version the record is lost",
        ) from error


def _of_record(record: dict[str, Any]) -> Manifest:
    made = record["recipe"]
    recipe = Recipe(made["inputs"], _shared(made["settings"]), made["code_version"])
    files = {name: (size, digest) for name, (size, digest) in record["files"].items()}
    return Manifest(**{**record, "recipe": recipe, "files": files})


_SETTINGS: dict[str, Mapping[str, Any]] = {}


def _shared(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same mapping for equal settings: thousands of shards have one."""
    return _SETTINGS.setdefault(repr(settings), settings)


def _changed(path: str) -> int | None:
    """When a file or folder changed last, in ns; None if it is not there."""
    try:
        # A Path for each of thousands would take longer than asking the file system.
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None


def _written(place: str, known: _Known) -> str:
    line = [place, known.folder, known.name, known.file, asdict(known.manifest)]
    return json.dumps(line, separators=(",", ":")) + "\n"
