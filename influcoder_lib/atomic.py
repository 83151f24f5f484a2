"""Writing small files whole or not at all, and saying why one cannot be written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from influcoder_lib.errors import StoreError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content, or the new one, never a part.

    Its folder is made if it is not there.

    Raises:
        StoreError: the folder cannot be written.
    """
    with _part(path, data) as part:
        part.replace(path)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file whole if there is none of that name; whether it was written."""
    with _part(path, data) as part:
        try:
            path.hardlink_to(part)
        except FileExistsError:
            return False
        return True


@contextmanager
def _part(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a file beside `path`, flushed to the disk; it goes if it was not moved."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        flush(part)
        yield part
    except OSError as error:
        raise not_writable(path.parent, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def not_writable(folder: Path, error: OSError) -> StoreError:
    """That nothing can be written below a folder, and why."""
    return StoreError(
        f"The data folder cannot be written: {error.strerror}.",
        where=str(folder),
        fix="give this user write access to the folder, or choose another home",
    )


def flush(path: Path) -> None:
    """Have a file's bytes on the disk before anything says that it is there."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
