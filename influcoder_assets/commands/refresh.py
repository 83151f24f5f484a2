"""Commands that look at the plan and carry it out, and that change which encoder is in use."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from influcoder_assets import environment
from influcoder_assets.commands.terminal import (
    HomeOption,
    JsonOption,
    console,
    errors,
    progress,
    say,
)
from influcoder_assets.home import find_demo_home, find_home
from influcoder_lib import memory
from influcoder_lib.errors import DataError, listed

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation

    from influcoder_assets.survey import Survey
    from influcoder_assets.workspace import Workspace
    from influcoder_lib.manifests import Manifest

_NAMED = 3
UNTRAINED = "untrained"


def demo(
    home: Annotated[
        Path | None, typer.Option("--home", help="The demo's home; else ./dagster_home.")
    ] = None,
) -> None:
    """Prepare the demo corpus in its home and bring everything up to date."""
    with errors():
        from influcoder_lib.demo_corpus import write_demo_corpus

        place = find_demo_home(home)
        _check_is_the_demo(place)
        counts = write_demo_corpus(place)
        samples = sum(sum(labels.values()) for labels in counts.shards.values())
        say(
            f"demo corpus: {samples} samples in {len(counts.shards)} shards, "
            f"{sum(counts.queries.values())} queries, in {place}"
        )
        _refresh(place)


def _check_is_the_demo(home: Path) -> None:
    """Refuse a home with a corpus of its own.

    Raises:
        DataError: the corpus holds files that are not the demo's.
    """
    from influcoder_assets.workspace import Workspace
    from influcoder_lib.demo_corpus import SHARDS

    workspace = Workspace.open(home)
    if not workspace.settings.corpus.path.exists():
        return
    own = {home / "corpus" / f"{name}.jsonl" for name in SHARDS}
    others = sorted(set(workspace.found.files.values()) - own)
    if others:
        raise DataError(
            "The demo's corpus would be mixed with another one.",
            where=listed([str(other) for other in others], 1),
            fix="choose another home with --home; to use this one as it is, type `influcoder run`",
        )


def run(
    home: HomeOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed.")] = False,
) -> None:
    """Bring everything up to date: exactly what `influcoder plan` lists."""
    with errors():
        place = find_home(home)
        if retry:
            from influcoder_assets.workspace import Workspace

            Workspace.open(place).store.forget_failures()
        _refresh(place)


def redistill(home: HomeOption = None) -> None:
    """Draw the distillation set again and train a challenger; it is used only if it is better."""
    with errors():
        place = find_home(home)
        os.environ.update(environment.of_home(place))
        from influcoder_assets import preflight
        from influcoder_assets.commands.driver import failed_checks, refresh_home
        from influcoder_assets.refresh import redistill_job
        from influcoder_assets.workspace import Workspace

        workspace = Workspace.open(place)
        preflight.check(workspace)
        store = workspace.store
        before = store.current("influence_encoder")
        with progress():
            failures, checks = refresh_home(place, redistill_job)
        after, champion = (
            Workspace.open(place).store.current(asset)
            for asset in ("influence_encoder", "champion_encoder")
        )
    if after is not None and after == before:
        if not failures:
            console.print(
                "Nothing that the encoder is distilled from has changed: none was trained."
            )
    elif after is not None:
        say(outcome(after, champion))
    _print_warnings(failed_checks(checks))
    _end(failures)


def outcome(trained: "Manifest", champion: "Manifest | None") -> str:
    """What became of the encoder that was trained, from what champion_encoder has on record."""
    version = f"version {trained.summary['version']}"
    if champion is None or champion.recipe.inputs["influence_encoder"] != trained.fingerprint:
        return f"{version} was not judged, and nothing else has changed: type `influcoder run`"
    merits = {k.removeprefix("merit_"): v for k, v in champion.summary.items() if "merit" in k}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in merits.items())
    promoted = champion.summary["version"] == trained.summary["version"]
    said = "is in use now" if promoted else "was not better, and nothing else has changed"
    return f"{version} {said}; on the test split: {shown}"


def rollback(
    home: HomeOption = None,
    to: Annotated[
        str, typer.Option("--to", help="A registry version, or `untrained`; else the one before.")
    ] = "",
) -> None:
    """Use an earlier encoder again: move the registry's alias. `influcoder run` follows it."""
    with errors():
        from influcoder_assets.champion import version_before
        from influcoder_assets.maker import current_plan
        from influcoder_assets.workspace import Workspace

        workspace = Workspace.open(find_home(home))
        target = to or version_before(workspace.store) or UNTRAINED
        if target == UNTRAINED:
            workspace.registry.demote()
        else:
            workspace.registry.promote(target)
        steps = len(current_plan(workspace))
    console.print(f"The alias champion now means: {target}. {steps} steps are out of date.")
    console.print("`influcoder run` brings them up to date." if steps else "Nothing is to be made.")


def plan(
    home: HomeOption = None,
    as_json: JsonOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and all that is stored again.")
    ] = False,
) -> None:
    """What is out of date, and why. JSON: a list of {asset, shard, reason}."""
    with errors():
        from influcoder_assets import preflight
        from influcoder_assets.survey import Survey
        from influcoder_assets.workspace import Workspace
        from influcoder_lib import refresh

        workspace = Workspace.open(find_home(home))
        preflight.check(workspace)
        damaged = _verify(workspace) if verify else []
        found = Survey.of(workspace)
        steps, failed = found.steps, found.failures
    if as_json:
        typer.echo(json.dumps(refresh.as_json(steps), indent=1))
        return
    table = Table("asset", "shards", "why", title=f"{len(steps)} steps", title_justify="left")
    for group in refresh.grouped(steps):
        table.add_row(group.asset, escape(listed(group.shards, _NAMED)), escape(group.reason))
    console.print(table if steps else _nothing_to_make(found))
    for message in damaged:
        say(message)
    _print_failures([f"{name}: {message}" for name, message in failed.items()], len(found.waiting))


def _verify(workspace: "Workspace") -> list[str]:
    """Hash every file of the corpus and every artifact in force anew; what is damaged, in words."""
    from influcoder_assets.maker import nodes

    workspace.hashes.forget()
    return [
        message
        for node in nodes()
        for shard in (workspace.store.shards(node.name) if node.sharded else [None])
        for message in workspace.store.verify(node.name, shard)
    ]


def _refresh(home: Path) -> None:
    os.environ.update(environment.of_home(home))
    from influcoder_assets import preflight
    from influcoder_assets.commands.driver import failed_checks, refresh_home, summary
    from influcoder_assets.reporting import warnings_of
    from influcoder_assets.survey import Survey
    from influcoder_assets.workspace import Workspace

    began = time.monotonic()
    failures: list[str] = []
    checks: list[AssetCheckEvaluation] = []
    workspace = Workspace.open(home)
    preflight.check(workspace)
    found = Survey.of(workspace)
    if not found.steps:
        console.print(f"{_nothing_to_make(found)}: the plan is empty, nothing is run.")
    steps = found.steps
    while steps:
        # With torch, which takes seconds to import.
        from influcoder_assets.commands.costs import expected_cost

        console.print(expected_cost(found.workspace, steps))
        with progress():
            failures, more = refresh_home(home)
        checks += more
        # What changed while the run was under way is left to the next one; here, that is this one.
        found = Survey.of(Workspace.open(home))
        steps = found.steps if found.steps != steps else []
    peak = memory.peak() / 2**30
    for line in summary(found.workspace):
        console.print(line, soft_wrap=isinstance(line, str))
    _print_warnings([*failed_checks(checks), *warnings_of(found.workspace)])
    console.print(f"pipeline {time.monotonic() - began:.0f} s, peak memory {peak:.2f} GiB")
    standing = [f"{name}: {message}" for name, message in found.failures.items()]
    _end(failures or standing, len(found.waiting))


def _print_warnings(warnings: Sequence[str]) -> None:
    if warnings:
        console.print("[yellow]Have a look at this:[/]")
        for warning in warnings:
            say(f"  {warning}")


def _end(failures: Sequence[str], waiting: int = 0) -> None:
    _print_failures(failures, waiting)
    if failures:
        raise typer.Exit(1)


def _nothing_to_make(found: "Survey") -> str:
    from influcoder_assets.commands.status_lines import nothing_to_make

    said = nothing_to_make(bool(found.failures), len(found.waiting))
    return said[0].upper() + said[1:]


def _print_failures(failures: Sequence[str], waiting: int) -> None:
    from influcoder_assets.commands.status_lines import waits

    if failures:
        console.print("[red]This failed, and is tried again when what it is made from changes:[/]")
        for failure in failures:
            say(failure)
    if waiting:
        say(f"{waits(waiting)}.")
