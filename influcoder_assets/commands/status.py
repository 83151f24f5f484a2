"""`influcoder status`: how everything stands, on one screen."""

import json
from dataclasses import asdict

import typer

from influcoder_assets.commands.terminal import HomeOption, JsonOption, errors
from influcoder_assets.home import find_home


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """How everything stands: corpus, encoder, rules, what is out of date, what failed.

    --json prints an object with the fields of commands.standing.Status: home, corpus, encoders,
    behaviors, steps, failures, waiting, warnings, last_run and bytes.
    """
    with errors():
        from influcoder_assets.commands.standing import look
        from influcoder_assets.commands.status_lines import print_status
        from influcoder_assets.workspace import Workspace
        from influcoder_lib import refresh

        found = look(Workspace.open(find_home(home)))
    if as_json:
        typer.echo(json.dumps({**asdict(found), "steps": refresh.as_json(found.steps)}, indent=1))
    else:
        print_status(found)
