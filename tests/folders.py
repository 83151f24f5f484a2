"""What is in a folder, to be compared."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file at any depth, by relative name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
