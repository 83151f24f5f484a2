"""What commands print is text: nothing in it drives the terminal."""

import logging

import pytest
import typer

from influcoder_assets.commands.terminal import errors, progress, say
from influcoder_lib.errors import DataError


def test_control_characters_in_an_error_are_shown_as_escapes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(typer.Exit), errors():
        raise DataError("bad \x1b]0;title\x07 \x9b2J \r\b[red]name[/red] é", where="a\tb.csv")
    shown = capsys.readouterr().err
    assert r"bad \x1b]0;title\x07 \x9b2J \r\x08[red]name[/red] é" in shown
    assert "\n  where: a" in shown
    assert not set(shown) & set("\x1b\x07\x9b\r\b")


def test_a_path_is_printed_as_it_is_and_in_one_line(capsys: pytest.CaptureFixture[str]):
    path = "/x[old]/" + "long/" * 60 + "a b.csv"
    say(f"made {path}")
    assert capsys.readouterr().out == f"made {path}\n"


def test_what_the_pipeline_says_of_a_file_does_not_drive_the_terminal(
    capsys: pytest.CaptureFixture[str],
):
    with progress():
        logging.getLogger("influcoder_assets").error("%s failed: \x1b[2J\x9b", "a.csv\x07")
    shown = capsys.readouterr().out
    assert r"a.csv\x07 failed: \x1b[2J\x9b" in shown
    assert not set(shown) & set("\x1b\x07\x9b")
