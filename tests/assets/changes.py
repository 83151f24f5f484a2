"""What a change makes anew: the sets that the tests expect, and how they look at plan and runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from influcoder_assets import maker
from influcoder_assets.refresh import refresh_sensor
from influcoder_assets.resources import HomeResource
from influcoder_assets.workspace import Workspace
from influcoder_lib.manifests import Key
from tests.assets import tiny_home
from tests.assets.tiny_home import everywhere

NEW_ROW = {"prompt": "h h h h", "response": "the green cat sleeps .", "label": None}
AFTER_THE_RULE = everywhere("decision_rule", "filtered_dataset", "curation_report")
AFTER_THE_CHAMPION = AFTER_THE_RULE | everywhere(
    "query_embeddings",
    "corpus_embeddings",
    "embedding_index",
    "calibration_scores",
    "influence_scores",
)
A_CHALLENGER = everywhere(
    "influence_encoder", "champion_encoder", "encoder_comparison", "curation_report"
)
A_NEW_SET = everywhere("distillation_set", "teacher_rankings") | A_CHALLENGER


def reasons(home: Path) -> dict[Key, str]:
    """Why each step of the plan is there."""
    return {(asset, shard): reason for asset, shard, reason in tiny_home.plan(home)}


def check_refresh(home: Path, made: set[Key]) -> None:
    """A refresh makes exactly this, and leaves nothing to do."""
    again = tiny_home.refresh(home)
    assert again.failures == []
    assert again.made == made
    assert len(again.materialized) == len(made), "an artifact was made twice"
    assert tiny_home.plan(home) == []


def counts(home: Path) -> dict[str, object]:
    return dict(Workspace.open(home).store.require("curation_report").summary)


def interrupt(
    patch: pytest.MonkeyPatch, asset: str, shard: str | None, do: Callable[[], None]
) -> None:
    """Do something just after the maker of an artifact has done its work."""
    whole = maker.makers()[asset]

    def interrupted(task: maker.Task) -> None:
        whole.make(task)
        if task.shard == shard:
            do()

    patch.setitem(maker.makers(), asset, dataclasses.replace(whole, make=interrupted))


def tick(home: Path, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """What the sensor says on a tick."""
    context = dg.build_sensor_context(
        instance=instance, resources={"home": HomeResource(path=str(home))}
    )
    return refresh_sensor(context)
