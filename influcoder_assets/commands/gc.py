"""`influcoder gc`: taking away the files of past versions that nobody needs."""

import json
from typing import Annotated

import typer

from influcoder_assets.commands.terminal import HomeOption, JsonOption, console, errors
from influcoder_assets.home import find_home
from influcoder_lib.errors import StoreError
from influcoder_lib.manifests import label


def gc(
    days: Annotated[
        float, typer.Option(min=0, max=36_500, help="Past versions younger than this are kept.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove the files of past versions that nobody needs, here and at the location.

    What is in force stays, and so do all manifests, every decision with what explains it, the
    encoder in use and the one before, and stored vectors.

    --json prints an object: removed (false with --dry-run), days, files, bytes, and versions: a
    list of asset, shard, number, created and bytes.
    """
    with errors():
        from influcoder_assets.champion import versions_in_use
        from influcoder_assets.lock import at_work, lock_of
        from influcoder_assets.workspace import Workspace
        from influcoder_lib.garbage import find_garbage, remove

        workspace = Workspace.open(find_home(home))
        if busy := at_work(workspace):
            raise StoreError(
                busy,
                where=str(workspace.home),
                fix="wait for it to end",
            )
        with lock_of(workspace):
            garbage = find_garbage(workspace.store, days, versions_in_use(workspace))
            if not dry_run:
                garbage = remove(workspace.store, garbage)
    files = garbage.here | garbage.there
    versions = [
        {name: getattr(each, name) for name in ("asset", "shard", "number", "created", "bytes")}
        for each in garbage.versions
    ]
    if as_json:
        told = {"removed": not dry_run, "days": days, "files": len(files)}
        typer.echo(
            json.dumps({**told, "bytes": sum(files.values()), "versions": versions}, indent=1)
        )
        return
    for each in versions:
        name = label((each["asset"], each["shard"]))
        line = f"{name}, version {each['number']} of {each['created']}: {each['bytes']:,} bytes"
        console.print(line, markup=False, highlight=False)
    verb = "would go" if dry_run else "went"
    console.print(f"{len(files)} files {verb}, {sum(files.values()):,} bytes.")
