"""The `influcoder` command: what a user types. It prints; the work is done by the refresh job."""

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from influcoder_assets.commands.terminal import HomeOption, JsonOption, console, errors
from influcoder_assets.home import find_home, init_home

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Folder of the new home.")]) -> None:
    """Make a home for your own corpus: commented settings, and folders to put data in."""
    with errors():
        for path in init_home(directory):
            console.print(f"made {path}")
    console.print(
        f"\nPut your shards into {directory}/corpus and queries into {directory}/queries, edit "
        f"{directory}/influcoder.yaml, then type:\n  influcoder run --home {directory}"
    )


@app.command()
def demo(home: HomeOption = None) -> None:
    """Prepare the demo corpus in the home and bring everything up to date."""
    with errors():
        from influcoder_lib.demo_corpus import write_demo_corpus

        place = find_home(home)
        counts = write_demo_corpus(place)
        samples = sum(sum(labels.values()) for labels in counts.shards.values())
        console.print(
            f"demo corpus: {samples} samples in {len(counts.shards)} shards, "
            f"{sum(counts.queries.values())} queries, in {place}"
        )
        _run(place)


@app.command()
def run(home: HomeOption = None) -> None:
    """Bring everything up to date: exactly what `influcoder plan` lists."""
    with errors():
        _run(find_home(home))


@app.command()
def plan(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What is out of date, and why."""
    with errors():
        from influcoder_assets.definitions import defs  # noqa: F401
        from influcoder_assets.maker import current_plan, standing_failures
        from influcoder_assets.workspace import Workspace
        from influcoder_lib.refresh import as_json as steps_as_json

        workspace = Workspace.open(find_home(home))
        steps = current_plan(workspace)
        failed = standing_failures(workspace)
    if as_json:
        typer.echo(json.dumps(steps_as_json(steps), indent=1))
        return
    table = RichTable("asset", "shard", "reason", title=f"{len(steps)} steps")
    for step in steps:
        table.add_row(step.asset, step.shard or "", escape(step.reason))
    console.print(table if steps else _nothing_to_make(failed))
    _print_failures([f"{name}: {message}" for name, message in failed.items()])


@app.command()
def ui(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI on the home, with its schedules and sensors."""
    with errors():
        place = find_home(home)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "influcoder_assets.definitions"]
    environment = {**os.environ, **_environment(place)}
    raise typer.Exit(subprocess.call([*command, "-h", host, "-p", str(port)], env=environment))


def _run(home: Path) -> None:
    os.environ.update(_environment(home))
    from influcoder_assets.definitions import defs  # noqa: F401
    from influcoder_assets.driver import expected_cost, refresh_home, summary
    from influcoder_assets.maker import current_plan, standing_failures
    from influcoder_assets.workspace import Workspace

    workspace = Workspace.open(home)
    steps = current_plan(workspace)
    began = time.monotonic()
    failures: list[str] = []
    if steps:
        console.print(expected_cost(workspace, steps))
        with _progress():
            failures = refresh_home(home)
    else:
        nothing = _nothing_to_make(standing_failures(workspace))
        console.print(f"{nothing}: the plan is empty, nothing is run.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for line in summary(Workspace.open(home)):
        console.print(line)
    console.print(f"pipeline {time.monotonic() - began:.0f} s, peak memory {peak:.2f} GiB")
    standing = standing_failures(Workspace.open(home))
    failures = failures or [f"{name}: {message}" for name, message in standing.items()]
    _print_failures(failures)
    if failures:
        raise typer.Exit(1)


def _nothing_to_make(failed: Mapping[str, str]) -> str:
    return "Everything else is up to date" if failed else "Everything is up to date"


def _print_failures(failures: Sequence[str]) -> None:
    if failures:
        console.print("[red]This failed, and is tried again when what it is made from changes:[/]")
        for failure in failures:
            console.print(failure, markup=False, highlight=False, soft_wrap=True)


def _environment(home: Path) -> dict[str, str]:
    """What the processes of a home need: no telemetry, no foreign bars, bounded memory."""
    return {
        "DAGSTER_HOME": str(home),
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TQDM_DISABLE": "1",
        # torch's CPU kernels are kept for every shape of batch that ever came; this bounds them.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    }


@contextmanager
def _progress() -> Iterator[None]:
    """Print what the pipeline says of itself, with the time since it began."""
    logger = logging.getLogger("influcoder_assets")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_SinceStart())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _SinceStart(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._began = time.time()

    def format(self, record: logging.LogRecord) -> str:
        """`mm:ss  message`."""
        seconds = int(record.created - self._began)
        return f"{seconds // 60:02d}:{seconds % 60:02d}  {record.getMessage()}"


if __name__ == "__main__":
    app()
