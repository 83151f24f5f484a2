"""Writing files whole or not at all: names for what is being written, clearing away what a killed
process left of it, and saying why something cannot be written."""

import errno
import os
import platform
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from influcoder_lib.errors import StoreError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# What file systems say that have no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# What numpy says of a disk that is full.
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
# Of one machine, the process that is writing; two machines may share a folder.
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_PART = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.part")


def part_of(path: Path) -> Path:
    """Where to write a file or folder before it is moved to `path`, beside it: a hidden name, new
    each time, that says who is writing."""
    return path.with_name(f".{path.name}.{_MACHINE}-{os.getpid()}-{secrets.token_hex(4)}.part")


def below(root: Path) -> Iterator[Path]:
    """All files and folders below a folder, but for what goes meanwhile; of no folder, none."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)


def parts(root: Path) -> Iterator[Path]:
    """All files and folders below a folder that are being written, or were."""
    return filter(is_part, below(root))


def is_part(path: Path) -> bool:
    """Whether a file or folder is being written, or was, by its name."""
    return path.match(".*.part")


def orphans(root: Path) -> list[Path]:
    """What processes of this machine that are gone left half written below a folder."""
    return [path for path in parts(root) if _is_orphan(path)]


def sweep(root: Path) -> list[Path]:
    """Remove the orphans, which nobody else ever looks at; returns the paths that were removed."""
    found = orphans(root)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _is_orphan(path: Path) -> bool:
    named = _PART.fullmatch(path.name)
    return named is not None and named["machine"] == _MACHINE and not _lives(int(named["process"]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


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
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create(path, data)
        return True


def _create(path: Path, data: bytes) -> bool:
    """The same where no file can have two names; who looks too early sees a part."""
    try:
        stream = path.open("xb")
    except FileExistsError:
        return False
    try:
        with stream:
            stream.write(data)
        flush(path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the name `path` at the end of the block, its bytes on the
    disk; an error leaves neither."""
    with _beside(path) as part:
        yield part
        flush(part)
        part.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for a file on its way to `path`; the file goes if it was not moved."""
    part = part_of(path)
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _part(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a file beside `path`, flushed to the disk; it goes if it was not moved."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as part:
            part.write_bytes(data)
            flush(part)
            yield part
    except OSError as error:
        raise not_writable(path.parent, error) from error


def not_writable(folder: Path, error: OSError) -> StoreError:
    """That nothing can be written below a folder, and why."""
    return StoreError(
        f"The data folder cannot be written: {error.strerror}.",
        where=str(folder),
        fix="free some space, give this user write access to the folder, or choose another home",
    )


def trouble_of_the_disk(error: Exception) -> OSError | None:
    """The trouble with a disk that an error of any library tells of in its text, if it does."""
    said = str(error)
    for number in _DISK:
        if os.strerror(number) in said:
            return OSError(number, os.strerror(number))
    is_full = isinstance(error, OSError) and _CUT_SHORT.search(said)
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if is_full else None


def flush(path: Path) -> None:
    """Have a file's bytes on the disk before anything says that it is there."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
