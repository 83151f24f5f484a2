"""Immutable artifacts and their manifests.

An artifact is a folder of files named by its fingerprint; it exists for readers from the moment
its manifest is written, which happens last. Nothing is ever overwritten: a new artifact adds a
manifest with the next number, the highest number is the current one, and older ones stay readable.

    ROOT/artifacts/ASSET/SHARD/FINGERPRINT/...     the files
    ROOT/manifests/ASSET/SHARD/000007.json         what they are and what they were made from
    ROOT/failures/ASSET/SHARD.json                 the last failure, until it is made good
    ROOT/damage/ASSET/SHARD.json                   what is wrong with the files, until made anew
    ROOT/tombstones/SHARD.json                     since when a shard's file is gone
"""

import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from influcoder_lib import fingerprint, timestamps
from influcoder_lib.atomic import (
    flush,
    not_writable,
    orphans,
    part_of,
    sweep,
    trouble_of_the_disk,
    write_atomically,
)
from influcoder_lib.errors import DamageError, InflucoderError, StoreError
from influcoder_lib.manifests import (
    ASIDE,
    Key,
    Manifest,
    Recipe,
    label,
    manifests_in_force,
    next_number,
    numbered,
    read_manifest,
)
from influcoder_lib.records import Records
from influcoder_lib.remote import ALONE, Remote

__all__ = ["Draft", "Manifest", "Recipe", "Store"]


_WHOLE = "_"


@dataclass
class Draft:
    """An artifact being made: files go below `folder`; rows and summary end in the manifest.

    `settled` holds inputs of the recipe that the making itself moved, as they are afterwards.
    """

    folder: Path
    rows: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)


class Store:
    """Reads and publishes the artifacts below one root folder, and through what it is a copy of."""

    def __init__(self, root: Path, remote: Remote = ALONE) -> None:
        self.root = root
        self.remote = remote
        self._failures = Records(root, "failures", remote)
        self._damage = Records(root, "damage", remote)
        self._tombstones = Records(root, "tombstones", remote)

    def current(self, asset: str, shard: str | None = None) -> Manifest | None:
        """The manifest in force, or None where nothing was published.

        One that cannot be read is set aside, and recorded as damage: the one before it is in force
        until the artifact is made anew.

        Raises:
            StoreError: the manifest is of another schema.
        """
        while True:
            try:
                return manifests_in_force(self.root).of(_name(asset, shard))
            except DamageError as error:
                self._set_aside(Path(error.where), asset, shard, error)

    def remember(self) -> None:
        """Keep the manifests in force at hand, in one file, for the next process."""
        manifests_in_force(self.root).save()

    def require(self, asset: str, shard: str | None = None) -> Manifest:
        """Like `current`, but a missing artifact is an error.

        Raises:
            StoreError: nothing was published under this name.
        """
        manifest = self.current(asset, shard)
        if manifest is None:
            raise StoreError(
                f"{label((asset, shard))} has not been made yet.",
                where=str(self._manifests(asset, shard)),
                fix=f"materialise {asset} first, or run `influcoder run`",
            )
        return manifest

    def history(self, asset: str, shard: str | None = None) -> list[Manifest]:
        """All manifests of one artifact, oldest first."""
        return [read_manifest(path) for path in numbered(self._manifests(asset, shard))]

    def newest_first(self, asset: str, shard: str | None = None) -> Iterator[Manifest]:
        """The same, newest first, each read when it is asked for."""
        return map(read_manifest, reversed(numbered(self._manifests(asset, shard))))

    def histories(self) -> dict[Key, list[Manifest]]:
        """All manifests of every artifact, oldest first, by asset and shard."""
        folder = self.root / "manifests"
        assets = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        keys = [(asset, shard) for asset in assets for shard in (None, *self.shards(asset))]
        found = {key: self.history(*key) for key in keys}
        return {key: history for key, history in found.items() if history}

    def shards(self, asset: str) -> list[str]:
        """Shards for which the asset was ever published, sorted."""
        folder = self.root / "manifests" / asset
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if name != _WHOLE)

    def path(self, manifest: Manifest, name: str) -> Path:
        """Path of one file of an artifact, its bytes checked against the manifest.

        Raises:
            DamageError: the file is missing, or its bytes are not those that were published. That
                is recorded, see `damage`.
        """
        path = self.place(manifest) / name
        problem = _problem(path, manifest.files[name])
        if problem is not None:
            self.remote.fetch([path])
            problem = _problem(path, manifest.files[name])
        if problem is None:
            return path
        asset, shard = manifest.asset, manifest.shard
        is_in_force = manifest == self.current(asset, shard)
        error = DamageError(
            f"{name} of {label((asset, shard))} {problem}",
            where=str(path),
            fix="run again: it is then made anew"
            if is_in_force
            else "`influcoder gc` removes files of past versions; a backup may have it",
        )
        if is_in_force:
            self._record_damage(asset, shard, manifest.number, error)
        raise error

    def folder(self, manifest: Manifest, below: str = "") -> Path:
        """Folder of an artifact, or one below it, every file in it checked as by `path`."""
        names = [name for name in manifest.files if not below or name.startswith(f"{below}/")]
        self.bring((manifest, name) for name in names)
        for name in names:
            self.path(manifest, name)
        return self.place(manifest) / below

    def bring(self, wanted: Iterable[tuple[Manifest, str]]) -> None:
        """Have those of the files that others have published here too, many at a time; `path`
        does it one by one. Of the files that are here already nothing is looked at.

        Raises:
            StoreError: the bytes of a file that was brought are not those that were published.
        """
        paths = {self.place(manifest) / name: (manifest, name) for manifest, name in wanted}
        lacking = [path for path in paths if not path.is_file()]
        self.remote.fetch(lacking)
        for path in filter(Path.is_file, lacking):
            try:
                self.path(*paths[path])
            except StoreError:
                path.unlink()
                raise

    def verify(self, asset: str, shard: str | None = None) -> list[str]:
        """Look at every byte of an artifact in force, and read the manifests of those before it;
        what is wrong, in words. What is damaged of the one in force is recorded, see `damage`, and
        manifests that cannot be read are set aside.

        Raises:
            StoreError: a manifest is of another schema.
        """
        found = []
        for path in reversed(numbered(self._manifests(asset, shard))):
            try:
                read_manifest(path)
            except DamageError as error:
                self._set_aside(path, asset, shard, error)
                found.append(str(error))
        manifest = self.current(asset, shard)
        try:
            if manifest is not None:
                self.folder(manifest)
        except DamageError as error:
            found.append(str(error))
        return found

    def damage(self) -> dict[Key, str]:
        """What is wrong with the artifacts in force that were found to be damaged: the plan asks
        for them, whatever they were made from. What cannot be read of it is none.

        Raises:
            StoreError: a manifest is of another schema.
        """
        found = {}
        for name, record in self._damage.having("number", "message").items():
            manifest = self.current(*_key(name))
            if manifest is not None and f"{manifest.number:06d}" <= record["number"]:
                found[_key(name)] = record["message"]
        return found

    def place(self, manifest: Manifest) -> Path:
        """Folder of an artifact, its files not looked at."""
        return self._artifact(manifest.asset, manifest.shard, manifest.fingerprint)

    @contextmanager
    def publish(
        self, asset: str, shard: str | None, recipe: Recipe, run_id: str
    ) -> Iterator[Draft]:
        """Make an artifact: write files below the draft's folder; leaving the block publishes it.

        An exception inside the block publishes nothing and leaves nothing behind.

        Raises:
            StoreError: the store's folder cannot be written.
        """
        staging = part_of(self.root / "staging" / asset)
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise not_writable(self.root, error) from error
        draft = Draft(staging)
        try:
            yield draft
            self._commit(draft, asset, shard, recipe, run_id)
        except InflucoderError:
            raise
        except Exception as error:
            if trouble := trouble_of_the_disk(error):
                raise not_writable(self.root, trouble) from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def attended(self) -> Iterator[int]:
        """A refresh at work. If the one before was killed, or whoever made a single artifact, what
        was left half written is removed; gives the number of files and folders that were."""
        mark = self.root / "unfinished"
        is_left = mark.exists() or orphans(self.root / "staging")
        removed = len(sweep(self.root)) if is_left else 0
        write_atomically(mark, b"")
        yield removed
        mark.unlink(missing_ok=True)

    def record_failure(self, asset: str, shard: str | None, recipe: Recipe, message: str) -> None:
        """Remember that making this artifact from this recipe failed, and why."""
        self._failures.put(_name(asset, shard), recipe=recipe.fingerprint, message=message)

    def failures(self) -> dict[Key, tuple[str, str]]:
        """Recipe fingerprint and message of every failure that was not made good. What of it cannot
        be read is tried again."""
        records = self._failures.having("recipe", "message")
        return {_key(name): (each["recipe"], each["message"]) for name, each in records.items()}

    def forget_failures(self) -> None:
        """Forget all failures, so that what failed is tried again."""
        self._failures.drop(self._failures.having("recipe"))

    def bury(self, shard: str) -> None:
        """Put up a tombstone: the shard's file is gone; what was made of it stays readable."""
        self._tombstones.put(shard, shard=shard, gone=timestamps.now())

    def revive(self, shard: str) -> None:
        """Take the tombstone away: the shard's file is there again."""
        self._tombstones.drop([shard])

    def tombstones(self) -> dict[str, str]:
        """Shards whose files are gone, and since when (UTC, ISO 8601). In place of a tombstone that
        cannot be read, the next refresh puts up another."""
        records = self._tombstones.having("shard", "gone").values()
        return {record["shard"]: record["gone"] for record in records}

    def _commit(
        self, draft: Draft, asset: str, shard: str | None, recipe: Recipe, run_id: str
    ) -> None:
        paths = sorted(path for path in draft.folder.rglob("*") if path.is_file())
        files = {
            path.relative_to(draft.folder).as_posix(): (
                path.stat().st_size,
                fingerprint.of_file(path),
            )
            for path in paths
        }
        content = fingerprint.of_pairs((name, digest) for name, (_, digest) in files.items())
        for path in paths:
            flush(path)
        home = self._artifact(asset, shard, content)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.folder.rename(home)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _mend(home, draft.folder, files)
        self.remote.send(home / name for name in files)
        manifest = Manifest(
            asset=asset,
            shard=shard,
            fingerprint=content,
            recipe=replace(recipe, inputs={**recipe.inputs, **draft.settled}),
            files=files,
            rows=draft.rows,
            summary=draft.summary,
            created=timestamps.now(),
            run_id=run_id,
        )
        self._number(manifest)
        for records in (self._failures, self._damage):
            records.drop([_name(asset, shard)])

    def _number(self, manifest: Manifest) -> None:
        """Publish a manifest under the next free number; of two at once, each gets its own."""
        folder = self._manifests(manifest.asset, manifest.shard)
        number = next_number(folder)
        while not self.remote.create(
            folder / f"{number:06d}.json",
            json.dumps(asdict(replace(manifest, number=number)), indent=1).encode(),
        ):
            number += 1

    def _record_damage(
        self, asset: str, shard: str | None, number: int, error: DamageError
    ) -> None:
        """Record that the version of this number, and so any before it, must not be used."""
        self._damage.put(_name(asset, shard), number=f"{number:06d}", message=str(error))

    def _set_aside(self, path: Path, asset: str, shard: str | None, error: DamageError) -> None:
        """Have a manifest that cannot be read again from the location, or take it out of the way;
        it stays beside the others, for whoever wonders, and its number is not given again."""
        self.remote.fetch([path])
        # Another process may be faster.
        with suppress(DamageError, FileNotFoundError):
            read_manifest(path)
            return
        if all(other <= path for other in numbered(path.parent)):
            self._record_damage(asset, shard, int(path.stem), error)
        with suppress(FileNotFoundError):
            path.replace(path.with_suffix(ASIDE))
        self.remote.remove([path])

    def _artifact(self, asset: str, shard: str | None, content: str) -> Path:
        return self.root / "artifacts" / asset / (shard or _WHOLE) / content

    def _manifests(self, asset: str, shard: str | None) -> Path:
        return self.root / "manifests" / asset / (shard or _WHOLE)


def _mend(home: Path, made: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Replace what was lost or damaged of an artifact since these very files were published."""
    for name, (_, digest) in files.items():
        if not (home / name).is_file() or fingerprint.of_file(home / name) != digest:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).replace(home / name)


def _problem(path: Path, published: tuple[int, str]) -> str | None:
    """What is wrong with a file that has these bytes and this fingerprint; None if nothing is."""
    size, expected = published
    if not path.is_file():
        return "is missing."
    if path.stat().st_size != size or fingerprint.of_file(path) != expected:
        return "is damaged: its bytes are not the published ones."
    return None


def _name(asset: str, shard: str | None) -> str:
    return f"{asset}/{shard or _WHOLE}"


def _key(name: str) -> Key:
    asset, shard = name.split("/", 1)
    return asset, None if shard == _WHOLE else shard
