"""Small records beside the artifacts, of what is not well or no longer there: each is a file of
JSON that stands until it is dropped, here and at the location. One that cannot be read is none:
what it told is found out again."""

import json
from collections.abc import Iterable
from pathlib import Path

from influcoder_lib.atomic import write_atomically
from influcoder_lib.remote import Remote

_SUFFIX = ".json"


class Records:
    """The records of one kind, ROOT/KIND/NAME.json; a name may have slashes."""

    def __init__(self, root: Path, kind: str, remote: Remote) -> None:
        self._folder = root / kind
        self._remote = remote

    def put(self, name: str, **entries: str) -> None:
        """Put up a record, in place of the one of that name.

        Raises:
            StoreError: the folder cannot be written, or the location does not answer.
        """
        path = self._path(name)
        write_atomically(path, json.dumps(entries).encode())
        self._remote.send([path])

    def drop(self, names: Iterable[str]) -> None:
        """Drop the records of these names, those that there are.

        Raises:
            StoreError: the location does not answer.
        """
        paths = [path for path in map(self._path, names) if path.is_file()]
        for path in paths:
            path.unlink(missing_ok=True)
        self._remote.remove(paths)

    def having(self, *entries: str) -> dict[str, dict[str, str]]:
        """All records that have these entries, by name, in the order of names."""
        found = {}
        for path in sorted(self._folder.rglob(f"[!.]*{_SUFFIX}")):
            name = path.relative_to(self._folder).as_posix().removesuffix(_SUFFIX)
            if record := _read(path, entries):
                found[name] = record
        return found

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _read(path: Path, entries: Iterable[str]) -> dict[str, str]:
    try:
        record = json.loads(path.read_text())
        return {name: str(record[name]) for name in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
