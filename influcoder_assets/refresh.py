"""One driver: the refresh job, and the sensor and schedule that start it.

The job has a step an asset, in dependency order. The first looks at the home; each of the others
asks the plan what of its asset is out of date by now and makes exactly that, shard by shard, so one
run refreshes any number of shards, each with its own data version, and equal content cascades
nothing. A shard that fails does not stop others.
What changes while a run is under way is left to the next one. The job `redistill` is the same, but
for the frozen distillation set: it is drawn again if that would give another one.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from influcoder_assets import events
from influcoder_assets.engine import Making
from influcoder_assets.lock import is_running, report_the_dead, report_the_dead_by_hand
from influcoder_assets.maker import makers, nodes, told
from influcoder_assets.resources import HandRun, HomeResource, RefreshRun
from influcoder_assets.survey import Survey
from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.errors import InflucoderError
from influcoder_lib.manifests import label
from influcoder_lib.refresh import Step, as_json

JOB = "refresh"
REDISTILL = "redistill"
_PLAN_TAG = "influcoder/plan"
_PAUSE = 600
# The other frozen asset, a trained adapter, would take every gradient with it.
_REDRAWN = "distillation_set"


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Make the shards of the corpus folder partitions, and write down the plan.",
)
def survey(context: dg.OpExecutionContext, home: HomeResource, run: RefreshRun) -> None:
    """Look at the home, follow the corpus folder and log the plan. The run asks for the lock here
    and keeps it to its end."""
    try:
        found = run.survey
        follow_shards(context.instance, found.workspace)
        context.log_event(events.plan_event(found))
    except InflucoderError as error:
        raise events.as_failure(error) from error
    context.log.info(f"{len(found.facts.shards)} shards in the corpus")


def follow_shards(instance: dg.DagsterInstance, workspace: Workspace) -> None:
    """Make the partitions those of the corpus folder: new shards appear, and one whose file is
    gone leaves a tombstone in the store, and in the event log."""
    name = str(events.SHARDS.name)
    known, present = set(instance.get_dynamic_partitions(name)), set(workspace.shards)
    if new := sorted(present - known):
        instance.add_dynamic_partitions(name, new)
    for shard in sorted(known - present):
        instance.delete_dynamic_partition(name, shard)
    store = workspace.store
    buried = store.tombstones().keys()
    for shard in buried & present:
        store.revive(shard)
    for shard in sorted(set(store.shards("corpus")) - present - buried):
        store.bury(shard)
        instance.report_runless_asset_event(_tombstone(shard))


@functools.cache
def _refresh_op(asset: str) -> dg.OpDefinition:
    return _making_op(f"refresh_{asset}", asset, "Make what is out of date of", Survey.due)


def _redraw_op(asset: str) -> dg.OpDefinition:
    return _making_op(f"redraw_{asset}", asset, "Make, if it would be another one,", Survey.thawed)


def _making_op(
    name: str, asset: str, verb: str, due: Callable[[Survey, str], list[Step]]
) -> dg.OpDefinition:
    """An op that makes the due artifacts of one asset, and tells of them one after another."""

    @dg.op(
        name=name,
        ins={"before": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        description=f"{verb} {asset}: {makers()[asset].description}",
    )
    def make_due(context: dg.OpExecutionContext, run: RefreshRun) -> None:
        try:
            steps = due(run.survey, asset)
            shards = [step.shard for step in steps]
            making = run.survey.start(asset, shards, context.run_id)
        except InflucoderError as error:
            raise events.as_failure(error) from error
        for step in steps:
            _make(context, run, step, making)

    return make_due


def _make(context: dg.OpExecutionContext, run: RefreshRun, step: Step, making: Making) -> None:
    """Make one artifact and say so; what it is made from may have changed since the survey."""
    name = label((step.asset, step.shard))
    try:
        if moved := run.survey.moved(step):
            context.log.info(f"{name} is left to the next run: {', '.join(moved)} changed")
            return
        context.log.info(f"{name}: {step.reason}")
        for event in events.materialise(
            run.survey, step.asset, step.shard, context.run_id, context.instance, making
        ):
            context.log_event(event)  # type: ignore[arg-type]
    except Exception as error:
        run.failed.append(f"{name}: {told(error)}")


@dg.op(ins={"before": dg.In(dg.Nothing)}, description="Fail the run if anything in it failed.")
def report_failures(context: dg.OpExecutionContext, home: HomeResource, run: RefreshRun) -> None:
    """Write down what the plan is now; fail the run, naming everything that could not be made."""
    failed = list(run.failed)
    try:
        # What the run learnt of the shards that it made, the look at its end need not learn again.
        run.survey.workspace.remember()
        found = Survey.of(home.open())
        for event in events.catch_up(found, context.instance):
            context.log_event(event)  # type: ignore[arg-type]
        failed += [f"{name}: {message}" for name, message in found.workspace.refused.items()]
        context.log_event(events.plan_event(found))
    except InflucoderError as error:
        failed.append(str(error))
    if failed:
        raise dg.Failure("\n\n".join(failed), allow_retries=False)


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    description="Bring everything up to date: exactly the steps of the plan, and nothing else.",
)
def refresh_job() -> None:
    """The graph of the refresh job."""
    before: Any = survey()
    for node in nodes():
        before = _refresh_op(node.name)(before)
    report_failures(before)


@dg.job(
    name=REDISTILL,
    executor_def=dg.in_process_executor,
    description="Draw the distillation set again, new shards and queries included, and train a"
    " challenger on it. It is promoted, and everything after it made anew, only if it beats the"
    " encoder in use on the same test split. The same inputs are never tried twice.",
)
def redistill_job() -> None:
    """The graph of the redistill job: the refresh job's, with the frozen set drawn again."""
    before: Any = survey()
    for node in nodes():
        before = (_redraw_op if node.name == _REDRAWN else _refresh_op)(node.name)(before)
    report_failures(before)


@dg.sensor(
    job=refresh_job,
    minimum_interval_seconds=30,
    description="Starts a refresh when the plan is not empty. Registers new shards as partitions.",
)
def refresh_sensor(
    context: dg.SensorEvaluationContext, home: HomeResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for one refresh run for each new plan; never two at a time."""
    return _ask(context.instance, home)


@dg.schedule(
    job=refresh_job,
    cron_schedule="0 3 * * *",
    description="Starts a refresh every night at 03:00 UTC, when the plan is not empty.",
)
def daily_refresh(
    context: dg.ScheduleEvaluationContext, home: HomeResource
) -> dg.RunRequest | dg.SkipReason:
    """What the sensor does, by the clock."""
    asked = _ask(context.instance, home)
    return asked if isinstance(asked, dg.SkipReason) else (asked.run_requests or [])[0]


def _ask(instance: dg.DagsterInstance, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
    """A run of the refresh job if something is to be made and no run is at it, else why not."""
    try:
        workspace = home.open()
        report_the_dead_by_hand(instance, workspace, (events.PLAN, *makers()))
        if is_running(instance, workspace, (JOB, REDISTILL)):
            return dg.SkipReason("a refresh is running")
        follow_shards(instance, workspace)
        found = Survey.of(workspace)
        steps, failed = found.steps, found.failures
        tags = {_PLAN_TAG: fingerprint.of_json(as_json(steps))}
    except InflucoderError as error:
        return dg.SkipReason(str(error))
    if not steps and failed:
        waiting = f" and {len(found.waiting)} artifacts that wait for it" if found.waiting else ""
        names = ", ".join(failed)
        return dg.SkipReason(f"all but what failed{waiting} is up to date; failed: {names}")
    if not steps:
        return dg.SkipReason("everything is up to date")
    if _has_just_failed(instance, tags):
        return dg.SkipReason(
            f"the last run made nothing of this plan; it is tried again within {_PAUSE // 60} min"
        )
    return dg.SensorResult(
        run_requests=[dg.RunRequest(tags={**tags, "influcoder/steps": str(len(steps))})],
        asset_events=[events.plan_event(found)],
    )


def _has_just_failed(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> bool:
    """Whether a run was asked for with the same plan and failed a short while ago: a full disk
    is not tried every half minute."""
    asked = instance.get_run_records(dg.RunsFilter(job_name=JOB, tags=dict(tags)), limit=1)
    return any(
        record.dagster_run.status == dg.DagsterRunStatus.FAILURE
        and time.time() - record.update_timestamp.timestamp() < _PAUSE
        for record in asked
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers the shards of the corpus folder as partitions; starts nothing.",
)
def shard_sensor(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SkipReason:
    """Register new shards, so that they can be materialised by hand; and clear away runs that were
    killed, which would keep Dagster's queue waiting."""
    try:
        workspace = home.open()
        report_the_dead(context.instance, workspace, (JOB, REDISTILL))
        report_the_dead_by_hand(context.instance, workspace, (events.PLAN, *makers()))
        follow_shards(context.instance, workspace)
    except InflucoderError as error:
        return dg.SkipReason(str(error))
    return dg.SkipReason(f"{len(workspace.shards)} shards are registered")


@dg.asset(
    name=events.PLAN,
    group_name="refresh",
    code_version="1",
    kinds={"markdown"},
    description="What is out of date and why. Materialise it to look at the plan; that makes"
    " nothing else. Every refresh writes it down when it begins and when it ends.",
)
def refresh_plan(
    context: dg.AssetExecutionContext, home: HomeResource, by_hand: HandRun
) -> dg.MaterializeResult:
    """The plan as metadata of an asset, for people who work in the UI."""
    try:
        workspace = home.open()
        follow_shards(context.instance, workspace)
        found = Survey.of(workspace)
        shown = events.plan_metadata(found.steps, found.failures)
    except InflucoderError as error:
        raise events.as_failure(error) from error
    return dg.MaterializeResult(metadata=shown)


def _tombstone(shard: str) -> dg.AssetObservation:
    return dg.AssetObservation(
        "corpus",
        partition=shard,
        description="The shard's file is gone. Its rows leave the merged assets; what was decided"
        " about them stays on record.",
        metadata={"tombstone": True},
    )
