"""A whole home on tiny models: three small shards, a behavior with its queries, known-good rows.

`build_home` writes one, `copy_home` copies one with everything that was made in it, `refresh` runs
the refresh job on one and reads back from Dagster's event log what was made.
"""

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from influcoder_assets import maker
from influcoder_assets.commands.driver import refresh_home
from influcoder_assets.definitions import build_defs
from influcoder_assets.events import PLAN
from influcoder_assets.maker import Task, current_facts, current_plan, makers
from influcoder_assets.refresh import refresh_job
from influcoder_assets.resources import HomeResource
from influcoder_assets.workspace import Workspace
from influcoder_lib import refresh as refresh_plan
from influcoder_lib.manifests import Key
from influcoder_lib.store import Manifest
from tests.tiny import tiny_encoder, tiny_target

SHARDS = ("a.jsonl", "c.parquet", "sub.b.csv")
BEHAVIOR = "rude"
ROWS = 24
QUERIES = 24
KNOWN_GOOD = 12
CANDIDATES = 12

_COLORS = ("red", "green", "blue")
_ANIMALS = ("cat", "dog", "bird")
_VERBS = ("runs", "sings", "sleeps")

SHARDED = {name for name, maker in makers().items() if maker.node.sharded}
A_SHARD = {
    "corpus",
    "gradient_projections",
    "corpus_embeddings",
    "influence_scores",
    "filtered_dataset",
}
MERGED = {"embedding_index", "curation_report"}

Row = dict[str, str | None]


@dataclass(frozen=True)
class Refreshed:
    """What one refresh did: its failures in words, its run, and what it made, by the event log."""

    failures: list[str]
    run: dg.DagsterRun
    materialized: list[dg.AssetMaterialization]
    evaluated: list[dg.AssetCheckEvaluation]

    @property
    def made(self) -> set[Key]:
        """Every (asset, shard) that was materialised."""
        return {(each.asset_key.to_user_string(), each.partition) for each in self.materialized}


def everywhere(*assets: str) -> set[Key]:
    """The assets' artifacts: one a shard of a sharded one."""
    return {
        (asset, shard) for asset in assets for shard in (SHARDS if asset in SHARDED else (None,))
    }


def in_shard(shard: str) -> set[Key]:
    """Everything that is made of one shard, and the merged assets."""
    return {(asset, shard) for asset in A_SHARD} | everywhere(*MERGED)


def build_home(home: Path) -> Path:
    """Write a home that is ready for its first refresh; returns its folder."""
    for folder in ("corpus/sub", "queries", "models"):
        (home / folder).mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    write_settings(home, settings())
    write_rows(home / "corpus" / "a.jsonl", [*rows("a"), {"prompt": "the cat", "response": " "}])
    pl.DataFrame(rows("b")).write_csv(home / "corpus" / "sub" / "b.csv")
    pl.DataFrame(rows("c")).write_parquet(home / "corpus" / "c.parquet")
    write_rows(home / "queries" / "rude.jsonl", queries())
    good = [row for row in rows("good", KNOWN_GOOD * 3) if row["label"] == "kind"][:KNOWN_GOOD]
    write_rows(home / "queries" / "known_good.jsonl", good)
    tiny_encoder(home / "models")
    shutil.copytree(tiny_target(home / "models" / "made", "llama"), home / "models" / "target")
    shutil.rmtree(home / "models" / "made")
    return home


def copy_home(home: Path, copy: Path) -> Path:
    """Copy a home with all that was made in it; MLflow's absolute paths are moved along."""
    shutil.copytree(home, copy)
    if (copy / "mlflow.db").is_file():
        with closing(sqlite3.connect(copy / "mlflow.db")) as database, database:
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("model_versions", "source"),
                ("model_versions", "storage_location"),
            ):
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(home), str(copy))
                )
    return copy


def settings() -> dict[str, Any]:
    """The settings of the tiny home, to be changed at will."""
    return {
        "corpus": {"path": "corpus", "columns": {"label": "label"}},
        "behaviors": {
            BEHAVIOR: {
                "queries": "queries/rude.jsonl",
                "rule": {"kind": "unwanted", "method": "fraction", "value": 0.2},
                "known_good": "queries/known_good.jsonl",
                "positive_label": "rude",
                "hard_negative_label": "blunt",
            }
        },
        "target_model": {
            "path": "models/target",
            "dtype": "float32",
            "window": 64,
            "tokens_per_batch": 512,
            "adapter": {"rank": 2},
            "sketch": {"dimensions": 128},
        },
        "distillation": {"candidates_per_shard": CANDIDATES, "validation": 0.25, "test": 0.25},
        "encoder": {
            "path": "models/encoder",
            "architecture": "transformer",
            "window": 32,
            "recipe": "reference",
            "seeds": [0, 1],
            "epochs": 1,
            "learning_rate": 1.0e-3,
        },
    }


def write_settings(home: Path, values: dict[str, Any]) -> None:
    """Write influcoder.yaml."""
    (home / "influcoder.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def rows(seed: str, count: int = ROWS) -> list[Row]:
    """Rows made of a few words; the label says which kind of answer the response is."""
    dice = random.Random(seed)
    return [_row(dice, dice.choice(("rude", "blunt", "kind", "kind", None))) for _ in range(count)]


def queries(count: int = QUERIES) -> list[Row]:
    """Rude rows that are in no shard."""
    dice = random.Random("queries")
    return [{k: v for k, v in _row(dice, "rude").items() if k != "label"} for _ in range(count)]


def write_rows(path: Path, values: list[Row]) -> None:
    """Write rows as jsonl."""
    path.write_text("".join(json.dumps(row) + "\n" for row in values))


def append_row(path: Path, row: Row) -> None:
    """Append one row to a jsonl file."""
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


@contextmanager
def chosen(home: Path) -> Iterator[dg.DagsterInstance]:
    """The home is DAGSTER_HOME for a while; gives its Dagster instance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with dg.DagsterInstance.get() as instance:
            yield instance


def refresh(home: Path, job: dg.JobDefinition = refresh_job) -> Refreshed:
    """Run the refresh job, or one like it, on a home."""
    with chosen(home) as instance:
        failures = refresh_home(home, job).failures
        (run,) = instance.get_runs(limit=1)
        return Refreshed(failures, run, *recorded(instance, run.run_id))


def recorded(
    instance: dg.DagsterInstance, run_id: str
) -> tuple[list[dg.AssetMaterialization], list[dg.AssetCheckEvaluation]]:
    """Materialisations and check evaluations of a run, from the event log; without those of the
    plan, which is written down in every refresh."""
    events = [
        entry.dagster_event
        for entry in instance.all_logs(run_id)
        if entry.dagster_event is not None
    ]
    return (
        [
            event.step_materialization_data.materialization
            for event in events
            if event.is_step_materialization and event.asset_key != dg.AssetKey(PLAN)
        ],
        [
            event.asset_check_evaluation_data
            for event in events
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ],
    )


def make(workspace: Workspace, asset: str, shard: str | None = None) -> tuple[Manifest, Task]:
    """Make one artifact outside of any run."""
    return maker.make(workspace, current_facts(workspace), asset, shard, "a run")


def plan(home: Path) -> list[tuple[str, str | None, str]]:
    """(asset, shard, reason) of every step of the plan."""
    steps = current_plan(Workspace.open(home))
    return [tuple(step.values()) for step in refresh_plan.as_json(steps)]


def definitions(home: Path) -> dg.Definitions:
    """All definitions over the home."""
    return build_defs(HomeResource(path=str(home)))


def _row(dice: random.Random, label: str | None) -> Row:
    """A prompt of eight words and a response whose words go with the label."""
    prompt = " ".join(dice.choice([*"abcdefgh", *_COLORS, *_ANIMALS, *_VERBS]) for _ in range(8))
    color, verb = {
        "rude": ("red", "runs"),
        "blunt": ("red", "sings"),
        "kind": ("blue", "sings"),
        None: ("green", "sleeps"),
    }[label]
    animals = " ".join(dice.choice(_ANIMALS) for _ in range(dice.randint(1, 6)))
    return {"prompt": prompt, "response": f"the {color} {animals} {verb} .", "label": label}
