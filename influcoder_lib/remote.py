"""The place that several machines share artifacts through, as the store sees it.

Whoever reads or writes an artifact works with files of this machine. What is published goes to the
shared place as well, its manifest last and never in place of another; what others published there
comes here: manifests when a home is opened, files when they are asked for. `location` is such a
place; without one the data folder is all there is, and the same questions are answered by `Alone`.
"""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from influcoder_lib.atomic import below, write_new


class Stamp(NamedTuple):
    """Size of a file, and when it was written (seconds since 1970)."""

    bytes: int
    modified: float


class Remote(Hashable, Protocol):
    """What the store asks of the place that artifacts are shared through. Paths are local ones,
    below the data folder."""

    def catch_up(self) -> None:
        """Bring manifests, failures, damage and tombstones here as they are there."""

    def exchange(self, folder: Path) -> None:
        """Files of a folder that only one side has go to the other: none of them ever changes."""

    def fetch(self, paths: Iterable[Path]) -> None:
        """Bring these files here, in place of what is here; those that are not there are let be."""

    def send(self, paths: Iterable[Path]) -> None:
        """Put these files there, in place of what is there."""

    def create(self, path: Path, data: bytes) -> bool:
        """Write a file there and here if there is none of that name; whether it was written."""

    def remove(self, paths: Iterable[Path]) -> None:
        """Take these files away there; those that are not there are let be."""

    def stamps(self, name: str) -> dict[Path, Stamp]:
        """Every file there, below a folder of the location, by its local path."""

    def parts(self) -> dict[Path, Stamp]:
        """Every file there that somebody is writing, or began to and did not finish."""


class Alone:
    """No other place: the data folder is all there is."""

    def catch_up(self) -> None: ...

    def exchange(self, folder: Path) -> None: ...

    def fetch(self, paths: Iterable[Path]) -> None: ...

    def send(self, paths: Iterable[Path]) -> None: ...

    def create(self, path: Path, data: bytes) -> bool:
        """Write a file whole if there is none of that name; whether it was written."""
        return write_new(path, data)

    def remove(self, paths: Iterable[Path]) -> None: ...

    def stamps(self, name: str) -> dict[Path, Stamp]:
        """No file is there."""
        return {}

    def parts(self) -> dict[Path, Stamp]:
        """No file is there."""
        return {}


ALONE = Alone()


def stamps_below(folder: Path) -> dict[Path, Stamp]:
    """Every file of a local folder, at any depth."""
    return stamps_of(below(folder))


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Those of the paths that are files."""
    stats = {path: path.stat() for path in paths if path.is_file()}
    return {path: Stamp(stat.st_size, stat.st_mtime) for path, stat in stats.items()}


def size_of(path: Path) -> int:
    """Bytes of a file; -1 if it is not there, or goes meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
