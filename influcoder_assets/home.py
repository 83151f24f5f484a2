"""Homes: finding the folder with the user's settings, and making a new one."""

import os
from importlib.resources import files
from pathlib import Path

from influcoder_assets.config import SETTINGS_FILE
from influcoder_lib.errors import SettingsError, StoreError

DAGSTER_FILE = "dagster.yaml"
_HOME_FILES = (SETTINGS_FILE, DAGSTER_FILE)
_HOME_FOLDERS = ("corpus", "queries")
_DEFAULT_HOME = "dagster_home"


def find_home(given: Path | None) -> Path:
    """The home to work in: `given`, else DAGSTER_HOME, else ./dagster_home.

    Returns:
        The folder's absolute path.

    Raises:
        SettingsError: the folder lacks dagster.yaml or influcoder.yaml.
    """
    named = os.environ.get("DAGSTER_HOME", "")
    if given is not None:
        return _checked(given, "the argument")
    if named:
        return _checked(Path(named), "the environment variable DAGSTER_HOME")
    return _checked(Path(_DEFAULT_HOME), "default, as DAGSTER_HOME is not set")


def find_demo_home(given: Path | None) -> Path:
    """The demo's home: `given`, else ./dagster_home, as DAGSTER_HOME may name one with other data.

    Returns:
        The folder's absolute path.

    Raises:
        SettingsError: the folder lacks dagster.yaml or influcoder.yaml.
    """
    if given is not None:
        return _checked(given, "the argument")
    return _checked(Path(_DEFAULT_HOME), "default")


def _checked(folder: Path, chosen_by: str) -> Path:
    home = folder.expanduser().resolve()
    missing = [name for name in _HOME_FILES if not (home / name).is_file()]
    if missing:
        raise SettingsError(
            f"This folder is no home: it has no {' and no '.join(missing)}.",
            where=f"{home} (chosen by {chosen_by})",
            fix="make a home with `influcoder init DIR`",
        )
    return home


def init_home(directory: Path) -> list[Path]:
    """Make a home: commented settings, Dagster's settings, and empty corpus/ and queries/.

    Args:
        directory: the folder; it is made if it does not exist. Other files in it stay.

    Returns:
        The files and folders that were made.

    Raises:
        SettingsError: one of the two files is there already; nothing is written then.
        StoreError: the folder cannot be written.
    """
    present = [name for name in _HOME_FILES if os.path.lexists(directory / name)]
    if present:
        raise SettingsError(
            f"There is already a {' and a '.join(present)}, and nothing is overwritten.",
            where=str(directory),
            fix="choose another folder, or edit what is there",
        )
    made: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _HOME_FOLDERS:
            folder = directory / name
            if not folder.is_dir():
                folder.mkdir()
                made.append(folder)
        for name in _HOME_FILES:
            with (directory / name).open("x", encoding="utf-8") as stream:
                made.append(directory / name)
                stream.write(_template(name))
    except OSError as error:
        _unmake(made)
        raise StoreError(
            f"The home cannot be written: {error.strerror}.",
            where=str(error.filename or directory),
            fix="choose a folder that you may write to",
        ) from None
    return made


def _template(name: str) -> str:
    return (files("influcoder_assets") / "templates" / name).read_text(encoding="utf-8")


def _unmake(made: list[Path]) -> None:
    """Remove what an interrupted `init_home` has made, so that it can be tried again."""
    for path in reversed(made):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
