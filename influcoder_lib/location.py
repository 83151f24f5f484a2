"""A location that fsspec reaches, such as s3://bucket/prefix, and the data folder as the local copy
of it: which files go there and come here, and what its file system is asked for."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from influcoder_lib.atomic import below, is_part, part_of, write_atomically, write_new
from influcoder_lib.errors import StoreError
from influcoder_lib.remote import ALONE, Remote, Stamp, size_of

SETTING = "storage.location"
_MARKER = "copy_of.json"
_RECORDS = ("failures", "damage", "tombstones")
_AT_ONCE = 16
_HIDDEN = "***"
# Of the options, these may be shown in an error; any other may be a password.
_SHOWN = ("url", "region")


@dataclass(frozen=True)
class Location:
    """A location, and the folder that copies it.

    `options` go to fsspec and may hold passwords: they are in no error and no representation.

    Raises:
        StoreError: from every method, where the location does not answer as it should.
    """

    root: Path
    address: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def catch_up(self) -> None:
        """See `Remote`. What was made here before there was a location is published first.

        Raises:
            StoreError: the data folder is the copy of another location, or what was made here and
                what is there are two different histories.
        """
        if copied_from(self.root) is None:
            self._publish_all()
        there = self.stamps("manifests")
        self.fetch(path for path, stamp in there.items() if size_of(path) != stamp.bytes)
        for kind in _RECORDS:
            there = self.stamps(kind)
            for path in _files_below(self.root / kind) - there.keys():
                path.unlink(missing_ok=True)
            self.fetch(there)

    def exchange(self, folder: Path) -> None:
        """See `Remote`."""
        here, there = _files_below(folder), self.stamps(self._name(folder)).keys()
        self.fetch(there - here)
        self.send(here - there)

    def fetch(self, paths: Iterable[Path]) -> None:
        """See `Remote`."""
        self._each(self._fetch, paths)

    def send(self, paths: Iterable[Path]) -> None:
        """See `Remote`."""
        self._each(self._send, paths)

    def create(self, path: Path, data: bytes) -> bool:
        """See `Remote`."""
        with self._reached():
            try:
                self._with_folder(path, lambda there: self._create(there, data))
            except FileExistsError:
                return False
        write_atomically(path, data)
        return True

    def remove(self, paths: Iterable[Path]) -> None:
        """See `Remote`."""
        self._each(self._remove, paths)

    def _publish_all(self) -> None:
        """Publish what the data folder holds, so that it becomes a copy of the location."""
        own = sorted(_files_below(self.root / "manifests"))
        for path in self.stamps("manifests").keys() & set(own):
            self._check_same(path)
        damaged = self._damaged()
        artifacts = _files_below(self.root / "artifacts")
        self.send(path for path in artifacts if damaged.isdisjoint(path.parents))
        for kind in _RECORDS:
            self.send(_files_below(self.root / kind))
        for path in own:
            self.create(path, path.read_bytes())
        record = json.dumps({"location": self.address})
        write_atomically(self.root / _MARKER, record.encode())

    def _damaged(self) -> set[Path]:
        """Folders of the artifacts that are on record as damaged."""
        found = set()
        for path in _files_below(self.root / "damage"):
            place = path.relative_to(self.root / "damage").with_suffix("")
            # What cannot be read of it names no files.
            with suppress(OSError, ValueError, KeyError, TypeError):
                number = json.loads(path.read_text())["number"]
                manifest = self.root / "manifests" / place / f"{number}.json"
                content = json.loads(manifest.read_text())["fingerprint"]
                found.add(self.root / "artifacts" / place / content)
        return found

    def _check_same(self, path: Path) -> None:
        with self._reached():
            there = self._system.cat_file(self._there(path))
        if there != path.read_bytes():
            raise StoreError(
                f"{path.relative_to(self.root)} is one thing here and another at the location.",
                where=self._where,
                fix=f"move {self.root} away to work with what is at the location, or choose an"
                " empty location for what is here",
            )

    def stamps(self, name: str) -> dict[Path, Stamp]:
        """See `Remote`."""
        found = self._found(f"{self._base}/{name}")
        return {path: stamp for path, stamp in found.items() if path.name[:1] != "."}

    def parts(self) -> dict[Path, Stamp]:
        """See `Remote`."""
        if self._writes_whole:
            return {}
        return {path: stamp for path, stamp in self._found(self._base).items() if is_part(path)}

    def _found(self, folder: str) -> dict[Path, Stamp]:
        with self._reached():
            self._system.invalidate_cache()
            found = self._system.find(folder, detail=True)
        start = len(self._base) + 1
        stamps = {self.root / there[start:]: _stamp(info) for there, info in found.items()}
        for path in stamps:
            self._name(path)
        return stamps

    def _each(self, act: Callable[[Path], None], paths: Iterable[Path]) -> None:
        """Do it to many files at a time."""
        waiting = sorted(paths)
        if not waiting:
            return
        with self._reached(), ThreadPoolExecutor(min(_AT_ONCE, len(waiting))) as pool:
            for _ in pool.map(act, waiting):
                pass

    def _fetch(self, path: Path) -> None:
        there = self._there(path)
        part = part_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._system.get_file(there, str(part))
            part.replace(path)
        except FileNotFoundError:
            return
        finally:
            part.unlink(missing_ok=True)

    def _send(self, path: Path) -> None:
        self._with_folder(path, lambda there: self._put(path, there))

    def _put(self, path: Path, there: str) -> None:
        """Put a file there whole: who reads meanwhile sees none of it, or all."""
        if self._writes_whole:
            self._system.put_file(str(path), there)
            return
        part = str(part_of(Path(there)))
        try:
            self._system.put_file(str(path), part)
            self._system.mv(part, there)
        except BaseException:
            with suppress(Exception):
                self._system.rm_file(part)
            raise

    def _remove(self, path: Path) -> None:
        try:
            self._system.rm_file(self._there(path))
        except FileNotFoundError:
            return

    def _create(self, there: str, data: bytes) -> None:
        from fsspec.implementations.local import LocalFileSystem

        if self._writes_whole:
            self._system.pipe_file(there, data, mode="create")
        elif isinstance(self._system, LocalFileSystem):
            if not write_new(Path(there), data):
                raise FileExistsError(there)
        else:
            # What fsspec does for other systems is to look first and to write then.
            with self._system.open(there, "xb") as stream:
                stream.write(data)

    def _with_folder(self, path: Path, act: Callable[[str], None]) -> None:
        """Do it, making the folder first where a location has folders and this one is missing."""
        there = self._there(path)
        try:
            act(there)
        except FileNotFoundError:
            self._system.makedirs(there.rpartition("/")[0], exist_ok=True)
            act(there)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        with self._reached():
            system, base = url_to_fs(self.address, **self.options)
            return system, base.rstrip("/")

    @property
    def _system(self) -> Any:
        return self._opened[0]

    @property
    def _writes_whole(self) -> bool:
        """Whether a file is there only once all of it is, as in an object store."""
        from fsspec import AbstractFileSystem

        system = self._system
        return system.async_impl or type(system).pipe_file is not AbstractFileSystem.pipe_file

    @property
    def _base(self) -> str:
        return self._opened[1]

    @property
    def _where(self) -> str:
        return f"{self.address} ({SETTING})"

    def _name(self, path: Path) -> str:
        """What a file is called there; no name that was brought here leads out of the folder."""
        inner = path.relative_to(self.root)
        if ".." in inner.parts:
            raise StoreError(
                "A file of the location has a name that leads out of the data folder.",
                where=f"{inner}, {self._where}",
                fix="find out who wrote it, and delete it",
            )
        return inner.as_posix()

    def _there(self, path: Path) -> str:
        return f"{self._base}/{self._name(path)}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Every file system has errors of its own kinds; what they quote may be a password."""
        try:
            yield
        except (StoreError, FileExistsError):
            raise
        except Exception as error:
            raise StoreError(
                f"The storage location cannot be used: {self._told(error)}",
                where=self._where,
                fix=f"see that it is there and may be read and written, and that {SETTING} and"
                " storage.options are right; then do the same again",
            ) from None

    def _told(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        for secret in _secrets(self.options):
            text = text.replace(secret, _HIDDEN)
        return text


def remote_of(root: Path, address: str | None, options: Mapping[str, Any]) -> Remote:
    """What the settings name: a location, or none.

    Raises:
        StoreError: the data folder is the local copy of another location, or of one where the
            settings name none: not all of its files may be here.
    """
    copied = copied_from(root)
    if copied is not None and copied != address:
        raise StoreError(
            f"The data folder is the local copy of {copied}, and not all files may be in it.",
            where=str(root),
            fix=f"set {SETTING} to that again; or move the folder away; or, to go on with what is"
            f" in it, delete {root / _MARKER}: what is missing is made anew",
        )
    return ALONE if address is None else Location(root, address, options)


def copied_from(root: Path) -> str | None:
    """The location that a data folder is the copy of; None if it is none.

    Raises:
        StoreError: the file that says so cannot be read.
    """
    marker = root / _MARKER
    try:
        return str(json.loads(marker.read_text())["location"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"What the data folder is a copy of cannot be read: {error}.",
            where=str(marker),
            fix=f"delete that file: the next run compares the folder with {SETTING} anew",
        ) from error


def _stamp(info: Mapping[str, Any]) -> Stamp:
    """What a file system says of a file; one that tells no time has files that are new."""
    told = info.get("LastModified") or info.get("last_modified") or info.get("mtime")
    if isinstance(told, datetime):
        told = told.timestamp()
    return Stamp(int(info["size"]), told if isinstance(told, int | float) else time.time())


def _files_below(folder: Path) -> set[Path]:
    """Files of a folder, at any depth, that are written to their end."""
    return {path for path in below(folder) if path.match("[!.]*") and path.is_file()}


def _secrets(options: Any, name: str = "") -> Iterator[str]:
    """Every text in the options that an error must not show, the longest first."""
    if isinstance(options, Mapping):
        inner = [found for key, each in options.items() for found in _secrets(each, str(key))]
        yield from sorted(inner, key=len, reverse=True)
    elif isinstance(options, str) and options and not any(word in name for word in _SHOWN):
        yield options
