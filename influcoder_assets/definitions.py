"""The code location: every asset, check, job, sensor and schedule, built by one factory."""

import warnings

import dagster as dg

from influcoder_assets import checks, events, refresh
from influcoder_assets.maker import Maker, makers, nodes
from influcoder_assets.resources import HandRun, HomeResource, resources_of
from influcoder_assets.survey import Survey
from influcoder_lib.errors import InflucoderError

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def build_defs(home: HomeResource | None = None) -> dg.Definitions:
    """All definitions over one home; without one, DAGSTER_HOME decides when a run starts."""
    return dg.Definitions(
        assets=[refresh.refresh_plan, *(_asset(makers()[node.name]) for node in nodes())],
        jobs=[refresh.refresh_job, refresh.redistill_job],
        sensors=[refresh.shard_sensor, refresh.refresh_sensor],
        schedules=[refresh.daily_refresh],
        resources=resources_of(home or HomeResource()),
        executor=dg.in_process_executor,
    )


def _asset(maker: Maker) -> dg.AssetsDefinition:
    node = maker.node
    own_checks = checks.of(node.name)

    @dg.asset(
        name=node.name,
        group_name=maker.group,
        deps=list(node.inputs),
        partitions_def=events.SHARDS if node.sharded else None,
        code_version=node.code_version,
        kinds=set(maker.kinds),
        description=maker.description,
        check_specs=[
            dg.AssetCheckSpec(
                check.name,
                asset=check.asset,
                description=check.description,
                partitions_def=events.SHARDS if node.sharded else None,
            )
            for check in own_checks
        ],
    )
    def materialise_asset(
        context: dg.AssetExecutionContext, home: HomeResource, by_hand: HandRun
    ) -> dg.MaterializeResult:
        shard = context.partition_key if node.sharded else None
        try:
            survey = Survey.of(home.open())
            said = list(
                events.materialise(survey, node.name, shard, context.run_id, context.instance)
            )
        except InflucoderError as error:
            raise events.as_failure(error) from error
        return events.as_result(said)

    return materialise_asset


defs = build_defs()
