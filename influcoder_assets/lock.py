"""What only one process does to a home at a time, and telling a run that is at work from one that
was killed.

The operating system takes a file lock from a process that dies, so the lock tells the truth where
Dagster's record of a killed run says "started" for ever.
"""

import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from influcoder_assets.home import DAGSTER_FILE
from influcoder_assets.storage import data_folder
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import StoreError

# A run has its lock within seconds of its start; after this long without it, its process is gone.
_GRACE_SECONDS = 60
# Until then, it imports everything that it needs, which a slow machine takes minutes for.
_IMPORT_SECONDS = 600
# Dagster's name for the job of every run that was started by choosing assets.
_BY_HAND = "__ASSET_JOB"
# Of what Dagster says: it lists all that would be allowed.
_MOST_CHARACTERS = 300

_BEFORE_ITS_LOCK = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
# Whatever has one of these has a process, or has lost it.
_ALIVE = (*_BEFORE_ITS_LOCK, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def is_running(instance: dg.DagsterInstance, workspace: Workspace, jobs: Sequence[str]) -> bool:
    """Whether one of the jobs runs on this home, or is about to."""
    report_the_dead(instance, workspace, jobs)
    return is_held(lock_of(workspace)) or bool(
        _runs(instance, jobs, [*_ALIVE, dg.DagsterRunStatus.QUEUED])
    )


def report_the_dead(
    instance: dg.DagsterInstance, workspace: Workspace, jobs: Sequence[str]
) -> None:
    """Report runs whose process is gone as failed: in Dagster's queue they would be in the way for
    ever."""
    if is_held(lock_of(workspace)):
        return
    for record in _runs(instance, jobs, _ALIVE):
        if _is_overdue(record):
            _report(instance, record)


def report_the_dead_by_hand(
    instance: dg.DagsterInstance, workspace: Workspace, assets: Collection[str]
) -> None:
    """The same for runs that make some of these assets by hand. Runs of the same kind that make
    others are those of another code location, and hold no lock here."""
    for record in _runs(instance, [_BY_HAND], _ALIVE):
        chosen = {key.to_user_string() for key in record.dagster_run.asset_selection or ()}
        own = _lock_by_hand(workspace.data, record.dagster_run.run_id)
        if chosen & set(assets) and _is_overdue(record) and not is_held(own):
            _report(instance, record)
            Path(own.lock_file).unlink(missing_ok=True)


@contextmanager
def by_hand(data: Path, run_id: str) -> Iterator[None]:
    """A run that makes assets by hand is at work: it holds a lock of its own in the data folder."""
    own = _lock_by_hand(data, run_id)
    with own:
        try:
            yield
        finally:
            Path(own.lock_file).unlink(missing_ok=True)


def at_work(workspace: Workspace) -> str:
    """What is at work on a home, as a sentence; empty if nothing is."""
    if is_held(lock_of(workspace)):
        return "A refresh of this home is running."
    if any(is_held(FileLock(path)) for path in (workspace.data / "by_hand").glob("*.lock")):
        return "A run that materialises single assets of this home is under way."
    return ""


def is_held(lock: FileLock) -> bool:
    """Whether another process, or another part of this one, holds the lock."""
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True


def lock_of(workspace: Workspace) -> FileLock:
    """The lock of a home; nobody holds it yet through this object."""
    return _lock(workspace.data / "refresh.lock")


def open_instance(home: Path) -> dg.DagsterInstance:
    """Dagster's records, those of DAGSTER_HOME, opened by one process on this home at a time.

    Two that open new records at the same instant create the same tables, and one of them fails.

    Raises:
        StoreError: see `opening`.
    """
    with opening(home), _lock(data_folder(home) / "dagster.lock"):
        return dg.DagsterInstance.get()


@contextmanager
def opening(home: Path) -> Iterator[None]:
    """Says in one way what Dagster, its database and its settings each say in their own.

    Raises:
        StoreError: Dagster's records cannot be opened.
    """
    try:
        yield
    except Exception as error:
        listed = re.search(r"Error 1: (.*)", str(error))
        said = listed[1] if listed else str(error) or type(error).__name__
        raise StoreError(
            f"Dagster's records cannot be opened: {said[:_MOST_CHARACTERS]}",
            where=str(home / DAGSTER_FILE),
            fix="let the home be written, mend this file, set the variables that it names, or start"
            " its database",
        ) from error


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A run may end in another thread than it began in.
    return FileLock(path, thread_local=False)


def _lock_by_hand(data: Path, run_id: str) -> FileLock:
    return _lock(data / "by_hand" / f"{run_id}.lock")


def _is_overdue(record: dg.RunRecord) -> bool:
    """Whether a run without a lock would have it by now, if it were alive."""
    is_starting = record.dagster_run.status in _BEFORE_ITS_LOCK
    allowed = _IMPORT_SECONDS if is_starting else _GRACE_SECONDS
    return time.time() - record.update_timestamp.timestamp() > allowed


def _report(instance: dg.DagsterInstance, record: dg.RunRecord) -> None:
    instance.report_run_failed(record.dagster_run, "The run's process is gone: it was killed.")


def _runs(
    instance: dg.DagsterInstance, jobs: Sequence[str], statuses: Sequence[dg.DagsterRunStatus]
) -> list[dg.RunRecord]:
    found = [
        instance.get_run_records(dg.RunsFilter(job_name=job, statuses=list(statuses)))
        for job in jobs
    ]
    return [record for records in found for record in records]
