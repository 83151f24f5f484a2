"""Where artifacts are kept: the home's data folder, alone or as the copy of a location."""

from pathlib import Path

from influcoder_assets.config import StorageSettings
from influcoder_lib.location import remote_of
from influcoder_lib.store import Store


def data_folder(home: Path) -> Path:
    """Folder of everything that is made."""
    return home / "data"


def open_store(home: Path, storage: StorageSettings) -> Store:
    """The artifacts of a home, with what others have published at its location by now.

    Raises:
        StoreError: the location does not answer, or the data folder is no copy of it.
    """
    root = data_folder(home)
    remote = remote_of(root, storage.location, storage.options)
    remote.catch_up()
    return Store(root, remote)
