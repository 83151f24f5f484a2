"""One refresh of a home at a time, and telling a run that is at work from one that was killed.

The operating system takes a file lock from a process that dies, so the lock tells the truth where
Dagster's record of a killed run says "started" for ever.
"""

import time
from collections.abc import Sequence

import dagster as dg
from filelock import FileLock, Timeout

from influcoder_assets.workspace import Workspace

# A run has the lock within seconds of its start; after this long without it, its process is gone.
_GRACE_SECONDS = 60

_ALIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)


def is_running(instance: dg.DagsterInstance, workspace: Workspace, jobs: Sequence[str]) -> bool:
    """Whether a refresh of this home runs or is about to. Runs whose process is gone are reported
    as failed, so that they stand in nobody's way."""
    held = is_held(lock_of(workspace))
    running = held
    for job in jobs:
        filters = dg.RunsFilter(job_name=job, statuses=[*_ALIVE, *_WAITING])
        for record in instance.get_run_records(filters):
            run = record.dagster_run
            silent = time.time() - record.update_timestamp.timestamp()
            if run.status in _ALIVE and not held and silent > _GRACE_SECONDS:
                instance.report_run_failed(run, "The run's process is gone: it was killed.")
            else:
                running = True
    return running


def is_held(lock: FileLock) -> bool:
    """Whether another process, or another part of this one, holds the lock."""
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True


def lock_of(workspace: Workspace) -> FileLock:
    """The lock of a home; nobody holds it yet through this object."""
    path = workspace.data / "refresh.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
