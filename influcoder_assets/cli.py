"""The `influcoder` command: what a user types. What it does is in `commands`, by subject."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from influcoder_assets import environment
from influcoder_assets.commands import audit, export, gc, refresh, status
from influcoder_assets.commands.terminal import HomeOption, errors, say
from influcoder_assets.home import find_home, init_home

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Folder of the new home.")]) -> None:
    """Make a home for your own corpus: commented settings, and folders to put data in."""
    with errors():
        for path in init_home(directory):
            say(f"made {path}")
    say(
        f"\nPut your shards into {directory}/corpus and queries into {directory}/queries, edit "
        f"{directory}/influcoder.yaml, then type:\n  influcoder run --home {directory}"
    )


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
    variables = {**os.environ, **environment.of_home(place)}
    # Dagster ends its processes by SIGINT, which those that a script starts behind itself ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise typer.Exit(subprocess.call([*command, "-h", host, "-p", str(port)], env=variables))


for command in (
    refresh.demo,
    refresh.run,
    refresh.plan,
    refresh.redistill,
    refresh.rollback,
    audit.explain,
    audit.search,
    audit.sql,
    status.status,
    export.export,
    gc.gc,
):
    app.command()(command)


if __name__ == "__main__":
    app()
