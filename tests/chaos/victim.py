"""A refresh in a process of its own, which can be killed at any instant.

The processes are forked from a server that has imported everything once, so that one starts within
a fraction of a second. Each says which artifact it starts and which it has made, and writes down
every sample that a model computed something of, before anything is stored.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.chaos.victim_imports"])


class Victim:
    """A refresh of a home under way in another process."""

    def __init__(self, home: Path, computed: Path) -> None:
        self._said, theirs = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(target=_refresh, args=(home, computed, theirs))
        self._process.start()
        theirs.close()

    def events(self) -> Iterator[tuple[str, str, float]]:
        """("starts" or "done", the artifact, when) as it comes, until the refresh ends."""
        with suppress(EOFError, ConnectionResetError):
            while True:
                yield self._said.recv()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self._process.join()

    def end(self) -> int:
        """Wait until it ends by itself; its exit code."""
        for _ in self.events():
            pass
        self._process.join()
        return int(self._process.exitcode or 0)


def make_at_once(home: Path, asset: str, shard: str, times: int) -> list[int]:
    """Make one artifact in several processes that begin together; their exit codes."""
    return _at_once(times, _make, home, asset, shard)


def open_at_once(home: Path, times: int) -> list[int]:
    """Open Dagster's records of a home in several processes that begin together; their exit
    codes."""
    return _at_once(times, _open, home)


def _at_once(times: int, work: Callable[..., None], *given: object) -> list[int]:
    begin = _SERVER.Barrier(times)
    processes = [_SERVER.Process(target=work, args=(begin, *given)) for _ in range(times)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    return [int(each.exitcode or 0) for each in processes]


def _open(begin: Barrier, home: Path) -> None:
    os.environ["DAGSTER_HOME"] = str(home)
    from influcoder_assets.lock import open_instance

    begin.wait()
    with open_instance(home) as instance:
        instance.get_runs_count()


def _make(begin: Barrier, home: Path, asset: str, shard: str) -> None:
    from influcoder_assets.maker import current_facts, make
    from influcoder_assets.workspace import Workspace

    workspace = Workspace.open(home)
    facts = current_facts(workspace)
    begin.wait()
    make(workspace, facts, asset, shard, "at once")


def batches(computed: Path) -> Iterator[tuple[str, list[str]]]:
    """What each batch that was written down is of, and its sample ids."""
    for line in computed.read_text().splitlines() if computed.exists() else []:
        kind, *ids = line.split()
        yield kind, ids


def _refresh(home: Path, computed: Path, told: Connection) -> None:
    os.environ["DAGSTER_HOME"] = str(home)
    from influcoder_assets.commands.driver import refresh_home

    log = logging.getLogger("influcoder_assets")
    log.setLevel(logging.INFO)
    log.addHandler(_Telling(told))
    _write_down(computed)
    failures = refresh_home(home).failures
    if failures:
        raise SystemExit("\n".join(failures))


class _Telling(logging.Handler):
    def __init__(self, told: Connection) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        artifact, _, said = record.getMessage().partition(": ")
        kind = "starts" if said == "starts" else "done" if said.startswith("done") else None
        if kind:
            self._told.send((kind, artifact, time.monotonic()))


def _write_down(computed: Path) -> None:
    """Have every batch of gradients, and of embeddings that are to be stored, written down: a line
    each, what it is of and the ids of its samples."""
    from influcoder_lib.curation.embedding import StoredVectors
    from influcoder_lib.teacher.gradients import GradientFeatures

    features, missing = GradientFeatures.features, StoredVectors._missing

    def note(kind: str, ids: list[str]) -> None:
        with computed.open("a") as stream:
            stream.write(" ".join([kind, *ids]) + "\n")

    def noted_features(self, samples):
        for batch in features(self, samples):
            note("gradients", [samples[index].sample_id for index in batch.indices])
            yield batch

    def noted_missing(self, blocks):
        for samples, seen in missing(self, blocks):
            note(self.rows.folder.name, [each.sample_id for each in samples])
            yield samples, seen

    GradientFeatures.features = noted_features  # type: ignore[method-assign]
    StoredVectors._missing = noted_missing  # type: ignore[method-assign]
