"""One driver: the refresh job, and the sensor and schedule that start it.

The job has a step an asset, in dependency order. Each step asks the plan what of its asset is out
of date and makes exactly that, shard by shard, so one run refreshes any number of shards, each with
its own data version, and equal content cascades nothing. A shard that fails does not stop others.
"""

from typing import Any

import dagster as dg

from influcoder_assets import events
from influcoder_assets.maker import MAKERS, current_plan, nodes, standing_failures
from influcoder_assets.resources import HomeResource
from influcoder_lib.errors import InflucoderError
from influcoder_lib.refresh import label

JOB = "refresh"


@dg.op(out=dg.Out(list), description="Make every shard of the corpus folder a partition.")
def register_shards(context: dg.OpExecutionContext, home: HomeResource) -> list[str]:
    """Register the shards that are in the corpus folder now."""
    try:
        shards = list(home.open().shards)
    except InflucoderError as error:
        raise events.as_failure(error) from error
    add_partitions(context.instance, shards)
    context.log.info(f"{len(shards)} shards in the corpus")
    return []


def add_partitions(instance: dg.DagsterInstance, shards: list[str]) -> None:
    """Register partitions that are not registered yet."""
    name = str(events.SHARDS.name)
    known = set(instance.get_dynamic_partitions(name))
    if new := [shard for shard in shards if shard not in known]:
        instance.add_dynamic_partitions(name, new)


def _refresh_op(asset: str) -> dg.OpDefinition:
    @dg.op(
        name=f"refresh_{asset}",
        ins={"failed": dg.In(list)},
        out=dg.Out(list),
        description=f"Make what is out of date of {asset}: {MAKERS[asset].description}",
    )
    def refresh_asset(
        context: dg.OpExecutionContext, home: HomeResource, failed: list[str]
    ) -> list[str]:
        try:
            workspace = home.open()
            steps = [s for s in current_plan(workspace) if s.asset == asset and s.ready]
        except InflucoderError as error:
            raise events.as_failure(error) from error
        for step in steps:
            context.log.info(f"{label((step.asset, step.shard))}: {step.reason}")
            try:
                for event in events.materialise(
                    workspace, asset, step.shard, context.run_id, context.instance
                ):
                    context.log_event(event)  # type: ignore[arg-type]
            except InflucoderError as error:
                failed = [*failed, f"{label((asset, step.shard))}: {error}"]
        return failed

    return refresh_asset


@dg.op(ins={"failed": dg.In(list)}, description="Fail the run if anything in it failed.")
def report_failures(context: dg.OpExecutionContext, failed: list[str]) -> None:
    """Fail the run, naming everything that could not be made; the rest is made."""
    if failed:
        raise dg.Failure("\n\n".join(failed), allow_retries=False)
    context.log.info("everything is up to date")


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    description="Bring everything up to date: exactly the steps of the plan, and nothing else.",
)
def refresh_job() -> None:
    """The graph of the refresh job."""
    failed: Any = register_shards()
    for node in nodes():
        failed = _refresh_op(node.name)(failed)
    report_failures(failed)


@dg.sensor(
    job=refresh_job,
    minimum_interval_seconds=30,
    description="Starts a refresh when the plan is not empty. Registers new shards as partitions.",
)
def refresh_sensor(
    context: dg.SensorEvaluationContext, home: HomeResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for one refresh run for each new plan; never two at a time."""
    try:
        workspace = home.open()
        add_partitions(context.instance, list(workspace.shards))
        steps = current_plan(workspace)
        failed = standing_failures(workspace)
    except InflucoderError as error:
        return dg.SkipReason(str(error))
    if not steps and failed:
        return dg.SkipReason(f"all but what failed is up to date; failed: {', '.join(failed)}")
    if not steps:
        return dg.SkipReason("everything is up to date")
    if _is_running(context.instance):
        return dg.SkipReason("a refresh is running")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={"influcoder/steps": str(len(steps))})])


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers the shards of the corpus folder as partitions; starts nothing.",
)
def shard_sensor(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SkipReason:
    """Register new shards, so that they can be materialised by hand."""
    try:
        shards = list(home.open().shards)
    except InflucoderError as error:
        return dg.SkipReason(str(error))
    add_partitions(context.instance, shards)
    return dg.SkipReason(f"{len(shards)} shards are registered")


daily_refresh = dg.ScheduleDefinition(
    name="daily_refresh",
    job=refresh_job,
    cron_schedule="0 3 * * *",
    description="Starts a refresh every night at 03:00.",
)


def _is_running(instance: dg.DagsterInstance) -> bool:
    busy = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    filters = dg.RunsFilter(job_name=JOB, statuses=busy)
    return instance.get_runs_count(filters) > 0
