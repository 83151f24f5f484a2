"""What all commands share: the console, the options that recur, progress as it goes, and errors
printed for people."""

import logging
import sys
import time
import unicodedata
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
    """Print a user-facing error without a stack trace, and exit with 1; of an interrupt, with 130
    as shells do."""
    try:
        yield
    except InflucoderError as error:
        _print_error(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt as interrupt:
        _print_error(f"Interrupted. {interrupt}".strip())
        raise typer.Exit(130) from None


def _print_error(text: str) -> None:
    shown = Console(stderr=True)
    shown.print(without_controls(text), style="red", markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a text that holds names or paths as it is: nothing of it is markup, and no line is
    broken, so that it can be copied."""
    console.print(without_controls(text), markup=False, highlight=False, soft_wrap=True)


def without_controls(text: str) -> str:
    """The text with its control characters, but tab and newline, written as escapes: names and rows
    of a corpus come into messages, and a terminal would obey them."""
    return "".join(
        repr(each)[1:-1] if unicodedata.category(each) == "Cc" and each not in "\t\n" else each
        for each in text
    )


@contextmanager
def progress() -> Iterator[None]:
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
        return f"{seconds // 60:02d}:{seconds % 60:02d}  {without_controls(record.getMessage())}"
