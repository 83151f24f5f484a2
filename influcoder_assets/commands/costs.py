"""What a plan will cost, told before it runs."""

from collections.abc import Collection, Sequence

from rich.console import RenderableType
from rich.table import Table

from influcoder_assets.encoder import training_seeds
from influcoder_assets.workspace import Workspace
from influcoder_lib import estimates, hardware
from influcoder_lib.refresh import Step

_MEASURED = 50


def expected_cost(workspace: Workspace, steps: list[Step]) -> RenderableType:
    """Table of the plan with expected seconds and memory of every asset in it."""
    found = estimates.estimate(steps, _workload(workspace, steps))
    total = sum(each.seconds for each in found)
    table = Table(
        "asset",
        "to make",
        "about",
        "memory",
        title=f"The plan: about {total:.0f} s",
        title_justify="left",
    )
    for each in found:
        table.add_row(
            each.asset, str(each.artifacts), f"{each.seconds:.0f} s", f"{each.gib:.1f} GiB"
        )
    return table


def _some_of(shards: Collection[str]) -> list[str]:
    """At most _MEASURED of the shards, spread over all of them."""
    ordered = sorted(shards)
    return ordered[:: -(-len(ordered) // _MEASURED) or 1]


def _workload(workspace: Workspace, steps: Sequence[Step]) -> estimates.Workload:
    settings = workspace.settings
    target, encoder = settings.target_model, settings.encoder
    adapter = target.adapter
    measured = _some_of({step.shard for step in steps if step.shard} or workspace.shards.keys())
    rows, characters = estimates.rows_and_characters([workspace.shards[s] for s in measured])
    queries = [behavior.queries for behavior in settings.behaviors.values()]
    return estimates.Workload(
        rows_per_shard=rows / max(1, len(measured)),
        characters=characters,
        target=workspace.target_files,
        encoder=workspace.encoder_files,
        dtype=target.dtype,
        window=target.window,
        encoder_window=encoder.window,
        candidates_per_shard=settings.distillation.candidates_per_shard,
        candidates=settings.distillation.candidates,
        queries=int(estimates.rows_and_characters([q for q in queries if q.is_file()])[0]),
        shards=len(workspace.shards),
        tokens_per_batch=hardware.gradient_tokens(target.tokens_per_batch, target.window),
        trained_on=adapter.samples * adapter.epochs if adapter.source == "warmup" else 0,
        static=encoder.architecture == "static",
        epochs=encoder.epochs if encoder.architecture == "transformer" else 0,
        samples_per_step=encoder.queries_per_step + encoder.candidates_per_step,
        candidates_per_step=encoder.candidates_per_step,
        seeds=len(training_seeds(encoder)),
    )
