"""Servers as processes of their own, on loopback, which are stopped or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: list[str], url: str, end: Callable[[subprocess.Popen[bytes]], None]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server and its children, once it answers at `url`, started as by a script that goes on
    beside it: deaf to SIGINT. `end` is `stop` or `kill`."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(url, seconds=240)
        yield process
    finally:
        end(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a server and its children to end, and wait until it has.

    Raises:
        subprocess.TimeoutExpired: it still lives after 90 seconds.
    """
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=90)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and its children with SIGKILL."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def dagster(home: Path, port: int) -> tuple[list[str], str]:
    """Command and address of the UI on a home, with the daemon that its sensors run in."""
    command = ["influcoder_assets.cli", "ui", "--home", str(home), "--port", str(port)]
    return command, f"http://127.0.0.1:{port}/server_info"


def switch_on(port: int, sensor: str) -> None:
    """Switch a sensor on, as a click in the UI does."""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "influcoder_assets.definitions",
        "sensorName": sensor,
    }
    query = (
        "mutation($it: SensorSelector!) {startSensor(sensorSelector: $it)"
        " {__typename ... on Sensor {sensorState {status}}}}"
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": {"it": selector}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = json.load(answer)
    assert said["data"]["startSensor"]["sensorState"]["status"] == "RUNNING", said


def mlflow(folder: Path, port: int) -> tuple[list[str], str]:
    """Command and address of an MLflow server that keeps everything in a folder."""
    folder.mkdir(exist_ok=True)
    command = ["mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "files")]
    return command, f"http://127.0.0.1:{port}"


def _wait_for(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(url)
