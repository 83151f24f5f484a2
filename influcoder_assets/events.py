"""What Dagster is told of an artifact: materializations, check results, metadata and failures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from influcoder_assets import checks, maker
from influcoder_assets.engine import Making
from influcoder_assets.maker import Task, makers
from influcoder_assets.survey import Survey
from influcoder_lib.errors import InflucoderError, listed
from influcoder_lib.quality import Finding
from influcoder_lib.refresh import Step, grouped
from influcoder_lib.report.escaping import escape
from influcoder_lib.store import Manifest

PLAN = "refresh_plan"
SHARDS = dg.DynamicPartitionsDefinition(name="shards")
_DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = "dagster/input_data_version"
_INPUT_EVENT = "dagster/input_event_pointer"
_SHOWN = 20


def materialise(
    survey: Survey,
    asset: str,
    shard: str | None,
    run_id: str,
    instance: dg.DagsterInstance,
    making: Making = maker.make,
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Make one artifact, and say so: its materialization, then the result of every check of it.

    Raises:
        Exception: it could not be made, see `maker.make`.
    """
    yield from _told(*survey.make(asset, shard, run_id, making), instance)


def catch_up(
    survey: Survey, instance: dg.DagsterInstance
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Say what was made without a word: a run that is killed between publishing an artifact and
    saying so leaves Dagster with the one before, and with no result of its checks."""
    for node in maker.nodes():
        shards = sorted(survey.facts.shards) if node.sharded else [None]
        said = _said(instance, node.name, shards)
        for shard in shards:
            made = survey.workspace.store.current(node.name, shard)
            if made is None or made.fingerprint == said.get(shard):
                continue
            # What another machine made at a shared location is for its own Dagster to show.
            if instance.has_run(made.run_id):
                yield from _told(*maker.taken_up(survey.workspace, survey.facts, made), instance)


def _said(
    instance: dg.DagsterInstance, asset: str, shards: Sequence[str | None]
) -> dict[str | None, str]:
    """The data version that Dagster knows of each shard of an asset."""
    key = dg.AssetKey(asset)
    if shards == [None]:
        latest = instance.get_latest_materialization_event(key)
        told = latest.asset_materialization if latest else None
        return {None: (told.tags or {}).get(_DATA_VERSION, "")} if told else {}
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, [_DATA_VERSION]
    )
    return {shard: found.get(_DATA_VERSION, "") for shard, found in tags.items()}


def _told(
    manifest: Manifest, task: Task, instance: dg.DagsterInstance
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """An artifact's materialization, then the result of every check of it."""
    yield dg.AssetMaterialization(
        manifest.asset,
        partition=manifest.shard,
        metadata=metadata(manifest, task),
        tags=_version_tags(manifest, instance),
    )
    for check in checks.of(manifest.asset):
        yield _evaluate(check, task, manifest.shard)


def metadata(manifest: Manifest, task: Task) -> dict[str, Any]:
    """What the UI shows of an artifact, the most useful first."""
    shown: dict[str, Any] = {
        name: dg.MetadataValue.md(text) for name, text in task.markdown.items()
    }
    for name, each in manifest.summary.items():
        if isinstance(each, dict):
            shown |= {f"{name}.{k}": v for k, v in each.items() if isinstance(v, float)}
        elif isinstance(each, bool | int | float | str):
            shown[name] = each
    store = task.workspace.store
    shown |= {
        "rows": manifest.rows,
        "size_in_bytes": manifest.bytes,
        "files": dg.MetadataValue.path(str(store.place(manifest))),
        "made_from": dg.MetadataValue.md(_made_from(manifest)),
        "fingerprint": manifest.fingerprint,
    }
    return shown


def plan_event(survey: Survey) -> dg.AssetMaterialization:
    """The plan as the materialization of the asset that shows it."""
    return dg.AssetMaterialization(PLAN, metadata=plan_metadata(survey.steps, survey.failures))


def plan_metadata(steps: Sequence[Step], failed: Mapping[str, str]) -> dict[str, Any]:
    """The plan in words, then in figures."""
    return {
        "plan": dg.MetadataValue.md(plan_markdown(steps, failed)),
        "steps": len(steps),
        "shards": len({step.shard for step in steps if step.shard}),
        "failures": len(failed),
    }


def plan_markdown(steps: Sequence[Step], failed: Mapping[str, str]) -> str:
    """A line for all steps of an asset that have one reason, in the order of the plan."""
    rows = [
        f"| {each.asset} | {escape(listed(each.shards))} | {escape(each.reason)} |"
        for each in grouped(steps)
    ]
    failures = [f"* {escape(name)}: {escape(message)}" for name, message in failed.items()]
    idle = "Nothing can be made." if failed else "Everything is up to date."
    blocks = [f"**{len(steps)} steps**" if steps else f"**{idle}**"]
    if rows:
        blocks.append("\n".join(["| asset | shards | why |", "|---|---|---|", *rows]))
    if failures:
        said = "Failed, and left alone until something changes, or until you materialise it:"
        more = len(failures) - _SHOWN
        counted = [f"* and {more} more"] if more > 0 else []
        blocks.append("\n".join([said, "", *failures[:_SHOWN], *counted]))
    return "\n\n".join(blocks)


def _version_tags(manifest: Manifest, instance: dg.DagsterInstance) -> dict[str, str]:
    """Data version, code version, and for every input its version and its latest event.

    These are the tags that Dagster itself writes for an asset it runs; with them, the UI shows
    what is out of date. A sharded input has a version a shard, so there the event decides.
    """
    node = makers()[manifest.asset].node
    tags = {_DATA_VERSION: manifest.fingerprint, _CODE_VERSION: node.code_version}
    for name in node.inputs:
        latest = instance.fetch_materializations(dg.AssetKey(name), limit=1).records
        tags[f"{_INPUT_VERSION}/{name}"] = manifest.recipe.inputs.get(name, "by shard")
        tags[f"{_INPUT_EVENT}/{name}"] = str(latest[0].storage_id) if latest else "NULL"
    return tags


def as_failure(error: InflucoderError) -> dg.Failure:
    """A user-facing error as Dagster shows it, without a stack trace to wade through."""
    return dg.Failure(description=str(error), allow_retries=False)


def _made_from(manifest: Manifest) -> str:
    rows = [f"| {name} | `{content[:12]}` |" for name, content in manifest.recipe.inputs.items()]
    return "\n".join(["| input | content |", "|---|---|", *rows[:50]])


def _evaluate(check: checks.Check, task: Task, shard: str | None) -> dg.AssetCheckEvaluation:
    try:
        found = check.look(task)
    except Exception as error:
        found = Finding(False, maker.told(error))
    if not found.passed:
        task.say(f"check {check.name} failed: {found.message}")
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(check.asset),
        check_name=check.name,
        passed=found.passed,
        metadata=found.figures,
        severity=dg.AssetCheckSeverity.ERROR if found.is_error else dg.AssetCheckSeverity.WARN,
        description=found.message,
        partition=shard,
    )


def as_result(
    said: list[dg.AssetMaterialization | dg.AssetCheckEvaluation],
) -> dg.MaterializeResult:
    """The same events as the result of an asset that Dagster runs by itself."""
    made = next(each for each in said if isinstance(each, dg.AssetMaterialization))
    evaluated = [each for each in said if isinstance(each, dg.AssetCheckEvaluation)]
    return dg.MaterializeResult(
        metadata=made.metadata,
        data_version=dg.DataVersion(str((made.tags or {})[_DATA_VERSION])),
        check_results=[
            dg.AssetCheckResult(
                passed=each.passed,
                check_name=each.check_name,
                metadata=each.metadata,
                severity=each.severity,
                description=each.description,
            )
            for each in evaluated
        ],
    )
