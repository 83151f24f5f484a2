"""What all commands share: the console, the options that recur, and errors printed for people."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from influcoder_lib.errors import InflucoderError

console = Console(width=None if sys.stdout.isatty() else 140)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The home; else DAGSTER_HOME, else ./dagster_home."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def errors() -> Iterator[None]:
    """Print a user-facing error without a stack trace, and exit with 1."""
    try:
        yield
    except InflucoderError as error:
        shown = Console(stderr=True)
        shown.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
