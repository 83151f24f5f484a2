"""`influcoder export`: the filtered dataset as a folder that others can load."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from influcoder_assets.commands.terminal import HomeOption, console, errors, say
from influcoder_assets.home import find_home
from influcoder_lib.errors import StoreError, listed

if TYPE_CHECKING:
    from influcoder_lib.export.dataset import Exported


def export(
    directory: Annotated[Path, typer.Argument(help="Folder to write, new or empty.")],
    form: Annotated[
        Literal["parquet", "jsonl"], typer.Option("--format", help="How rows are written.")
    ] = "parquet",
    home: HomeOption = None,
) -> None:
    """Write the filtered dataset, with dropped rows and reasons, for `datasets.load_dataset`."""
    with errors():
        from influcoder_assets.survey import Survey
        from influcoder_assets.workspace import Workspace
        from influcoder_lib.export.dataset import export_dataset

        workspace = Workspace.open(find_home(home))
        folder = directory.expanduser().resolve()
        _check_apart(folder, workspace.settings.corpus.path.resolve(), workspace.data.resolve())
        found = Survey.of(workspace)
        exported = export_dataset(
            workspace.store,
            list(workspace.shards),
            folder,
            form,
            out_of_date=len(found.steps),
            failed=found.failures,
            licences=workspace.settings.corpus.licences,
        )
    _say(exported, folder, len(found.steps), sorted(found.failures))


def _check_apart(folder: Path, *taken: Path) -> None:
    """Refuse a place where the exported files would become shards, or mix with stored artifacts.

    Raises:
        StoreError: the folder lies in one of those that are taken.
    """
    for place in taken:
        if folder.is_relative_to(place):
            raise StoreError(
                "The export cannot lie in the corpus folder or in the data folder.",
                where=f"{folder}, which is in {place}",
                fix="choose a folder outside",
            )


def _say(exported: "Exported", folder: Path, out_of_date: int, failed: list[str]) -> None:
    if out_of_date:
        console.print(
            f"[red bold]Steps of the pipeline that are out of date: {out_of_date}.[/] What is "
            "exported was made before, and its card says so. `influcoder plan` lists them, "
            "`influcoder run` makes them."
        )
    if failed:
        console.print(
            f"[red bold]What failed and could not be made: {len(failed)}[/] "
            f"({escape(listed(failed))}). Rows of before are exported in its place, where there "
            "are any, and the card says so. `influcoder plan` says why it failed."
        )
    if missing := exported.not_filtered:
        console.print(
            f"[red bold]Shards that are not exported, as they are not filtered: {len(missing)}[/] "
            f"({escape(listed(missing))})"
        )
    console.print(
        f"{exported.shards} shards: {exported.kept} rows kept, {exported.dropped} dropped, in"
    )
    say(str(folder))
