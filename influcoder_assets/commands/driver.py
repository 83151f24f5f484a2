"""Running the refresh job without the UI, and telling what came of it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table as RichTable

from influcoder_assets.lock import open_instance
from influcoder_assets.refresh import refresh_job
from influcoder_assets.resources import HomeResource, resources_of
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import StoreError, listed
from influcoder_lib.manifests import label
from influcoder_lib.report import wording
from influcoder_lib.report.model import Table, read_table

_NAMED = 3
_GO_ON = "What was made is kept: type `influcoder run` to go on from there."
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Ran(NamedTuple):
    """What came of a run: what could not be made, in words, and how every check turned out."""

    failures: list[str]
    checks: list[dg.AssetCheckEvaluation]


def refresh_home(home: Path, job: dg.JobDefinition = refresh_job) -> Ran:
    """Run the refresh job, or one like it, in this process, recorded in the home's Dagster
    instance.

    Raises:
        KeyboardInterrupt: the process was asked to end, by Ctrl-C or SIGTERM.
    """
    try:
        opened = open_instance(home)
    except StoreError as error:
        return Ran([str(error)], [])
    with opened as instance:
        result = job.execute_in_process(
            instance=instance,
            resources=resources_of(HomeResource(path=str(home))),
            run_config=_QUIET,
            raise_on_error=False,
        )
    if any(_is_interrupt(event) for event in result.all_events):
        raise KeyboardInterrupt(_GO_ON)
    failures = [
        str(event.step_failure_data.user_failure_data.description)
        if event.step_failure_data.user_failure_data
        else str(event.step_failure_data.error_display_string)
        for event in result.get_step_failure_events()
    ]
    if not failures and not result.success:
        failures = [_first_cause(event) for event in result.all_events if event.is_run_failure]
    checks = [
        event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    return Ran(failures, checks)


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    """Whether this is how Dagster, which catches signals, notes one: as a run that failed."""
    error = event.job_failure_data.error if event.is_run_failure else None
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def failed_checks(evaluations: Sequence[dg.AssetCheckEvaluation]) -> list[str]:
    """The checks that failed when they were looked at last, a line each: where, and what the first
    of them says. What a check merely warns of, the report or the headline tells."""
    latest = {(each.check_name, each.partition): each for each in evaluations}
    failed: dict[str, list[dg.AssetCheckEvaluation]] = {}
    for each in latest.values():
        if not each.passed and each.severity == dg.AssetCheckSeverity.ERROR:
            failed.setdefault(each.check_name, []).append(each)
    return [_of_check(name, evaluations) for name, evaluations in failed.items()]


def _of_check(name: str, failed: Sequence[dg.AssetCheckEvaluation]) -> str:
    places = [label((each.asset_key.to_user_string(), each.partition)) for each in failed]
    said = " ".join(str(failed[0].description).split())
    return f"check {name} failed, {listed(places, _NAMED)}: {said}"


def _first_cause(event: dg.DagsterEvent) -> str:
    """Why a run failed that came to no step, as where the home cannot be written."""
    error = event.job_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else str(event.message)


def summary(workspace: Workspace) -> Iterator[RenderableType]:
    """What came of it: the headline first, then the tables, then where everything is."""
    report = workspace.store.current("curation_report")
    if report is None:
        yield "There is no report yet."
        return
    stored = workspace.store.require("encoder_comparison")
    comparison = json.loads(workspace.store.path(stored, "comparison.json").read_text())
    in_use = workspace.store.require("champion_encoder").summary["version"]
    headline, tables = wording.of_trained(
        comparison["headline"],
        list(map(read_table, comparison["tables"])),
        in_use,
        workspace.store.require("influence_encoder").summary["version"],
    )
    yield f"\n[bold]{escape(headline)}[/bold]\n"
    yield from map(_rich, tables)
    counts = report.summary
    yield (
        f"{counts['rows_in']} rows in = {counts['kept']} kept + {counts['dropped']} dropped + "
        f"{counts['quarantined']} quarantined"
    )
    registry = escape(workspace.registry.shown_address)
    yield f"encoder in use: {wording.encoder(in_use)} (MLflow registry: {registry})"
    yield f"report: {escape(str(workspace.store.path(report, 'report.html')))}"
    yield "filtered dataset: type `influcoder export DIR`"


def _rich(table: Table) -> RichTable:
    columns, title, note = map(escape, table.columns), escape(table.title), escape(table.note)
    shown = RichTable(*columns, title=title, title_justify="left", caption=note)
    for row in wording.written_rows(table):
        texts = [(escape(cell.text), cell.best) for cell in row]
        shown.add_row(*(f"[bold]{text}[/bold]" if best else text for text, best in texts))
    return shown
