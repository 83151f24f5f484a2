"""Typing a command: `run("status", "--home", home)`."""

import os
from pathlib import Path
from unittest import mock

from click.testing import Result
from typer.testing import CliRunner

from influcoder_assets.cli import app


def run(*arguments: str | Path) -> Result:
    """The command's result, with no home chosen by the environment; an error is a sentence."""
    with mock.patch.dict(os.environ):
        for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI"):
            os.environ.pop(name, None)
        result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result
