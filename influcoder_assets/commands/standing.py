"""How a home stands: what `influcoder status` shows, gathered from the store, the plan and Dagster.

Nothing is computed by a model, and only small files are read.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import dagster as dg
import polars as pl

from influcoder_assets.lock import opening
from influcoder_assets.reporting import gap_of, query_ids, warnings_of
from influcoder_assets.survey import Survey
from influcoder_assets.workspace import Workspace
from influcoder_lib import timestamps
from influcoder_lib.curation.rules import Rule, read_rules
from influcoder_lib.metrics import Fidelity
from influcoder_lib.refresh import Step
from influcoder_lib.report.model import share
from influcoder_lib.report.standing import Standing, read_standing
from influcoder_lib.report.wording import rule_in_words
from influcoder_lib.store import Manifest, Store
from influcoder_lib.tables import scan_table


@dataclass(frozen=True)
class Corpus:
    """Shards in the corpus folder, and of those filtered: rows_in = kept + dropped + quarantined.

    `gone` counts shards whose files are not there any more, `not_filtered` those yet to be.
    """

    shards: int
    gone: int
    not_filtered: int
    rows_in: int
    kept: int
    dropped: int
    quarantined: int


@dataclass(frozen=True)
class Encoders:
    """The encoder in use and what there is beside it; times are UTC, ISO 8601.

    `fidelity` has the figures of `metrics.Fidelity` on the test split that are on record.
    """

    fingerprint: str
    in_use_since: str
    fidelity: Mapping[str, float]
    standing: Standing
    distillation_set_frozen: str


@dataclass(frozen=True)
class Behavior:
    """A behavior's rule in force, and the rows that it dropped: their number, their share of the
    valid ones (None without any). A wanted behavior drops none, and has None for both."""

    name: str
    rule: str
    threshold: float
    dropped: int | None
    share: float | None


@dataclass(frozen=True)
class LastRun:
    """Dagster's latest run; times are UTC, ISO 8601, and None while there are none."""

    job: str
    status: str
    began: str | None
    ended: str | None


@dataclass(frozen=True)
class Status:
    """Everything that one screen shows; `encoders` and `last_run` are None until there are any.

    `waiting` counts artifacts that cannot be made before something that failed is mended.
    """

    home: str
    corpus: Corpus
    encoders: Encoders | None
    behaviors: Sequence[Behavior]
    steps: Sequence[Step]
    failures: Mapping[str, str]
    waiting: int
    warnings: Sequence[str]
    last_run: LastRun | None
    bytes: Mapping[str, int]


def look(workspace: Workspace) -> Status:
    """See how the home stands now.

    Raises:
        DataError: the corpus has no shards.
        StoreError: something stored is damaged, or Dagster's records cannot be opened.
    """
    store, live = workspace.store, list(workspace.shards)
    found = Survey.of(workspace)
    filtered = _in_force(store, "filtered_dataset", live)
    return Status(
        home=str(workspace.home),
        corpus=_corpus(store, live, filtered),
        encoders=_encoders(store, live),
        behaviors=_behaviors(store, filtered),
        steps=found.steps,
        failures=found.failures,
        waiting=len(found.waiting),
        warnings=warnings_of(workspace),
        last_run=_last_run(workspace.home),
        bytes={
            "data": _size(workspace.data),
            "registry": sum(map(_size, workspace.home.glob("ml*"))),
        },
    )


def _in_force(store: Store, asset: str, shards: Sequence[str]) -> dict[str, Manifest]:
    """Manifests of a sharded asset, for the shards that have one."""
    found = {shard: store.current(asset, shard) for shard in shards}
    return {shard: manifest for shard, manifest in found.items() if manifest is not None}


def _corpus(store: Store, live: Sequence[str], filtered: Mapping[str, Manifest]) -> Corpus:
    counts = ("rows_in", "kept", "dropped", "quarantined")
    return Corpus(
        shards=len(live),
        gone=len(set(store.shards("corpus")) - set(live)),
        not_filtered=len(live) - len(filtered),
        **{name: sum(each.summary[name] for each in filtered.values()) for name in counts},
    )


def _encoders(store: Store, live: Sequence[str]) -> Encoders | None:
    champion, trained, frozen = (
        store.current(asset)
        for asset in ("champion_encoder", "influence_encoder", "distillation_set")
    )
    if champion is None or trained is None or frozen is None:
        return None
    scores = _in_force(store, "influence_scores", live)
    measured = {shard: each.summary.get("fidelity") for shard, each in scores.items()}
    drawn = _in_force(store, "gradient_projections", live)
    queries = query_ids(store.path(store.require("behavior_queries"), "queries.parquet"))
    contents = {shard: each.fingerprint for shard, each in drawn.items()}
    gap = gap_of(store, frozen, contents, queries)
    figures = {field.name for field in fields(Fidelity)} & champion.summary.keys()
    return Encoders(
        fingerprint=champion.summary["encoder"],
        in_use_since=_in_use_since(store, champion),
        fidelity={name: champion.summary[name] for name in sorted(figures)},
        standing=read_standing(champion.summary, trained.summary["version"], measured, gap),
        distillation_set_frozen=frozen.created,
    )


def _in_use_since(store: Store, champion: Manifest) -> str:
    """When the encoder in use came into use, the last time."""
    since = champion.created
    for manifest in reversed(store.history("champion_encoder")):
        if manifest.summary["encoder"] != champion.summary["encoder"]:
            break
        since = manifest.created
    return since


def _behaviors(store: Store, filtered: Mapping[str, Manifest]) -> list[Behavior]:
    rule_set = store.current("decision_rule")
    if rule_set is None:
        return []
    store.bring((each, "dropped.parquet") for each in filtered.values())
    tables = [store.path(each, "dropped.parquet") for each in filtered.values()]
    dropped = _dropped_by_behavior(tables) if tables else {}
    valid = sum(each.summary["kept"] + each.summary["dropped"] for each in filtered.values())
    rules = read_rules(store.path(rule_set, "rules.json"))
    return [_behavior(rule, dropped.get(rule.behavior, 0), valid) for rule in rules]


def _behavior(rule: Rule, dropped: int, valid: int) -> Behavior:
    drops = rule.kind == "unwanted"
    return Behavior(
        name=rule.behavior,
        rule=rule_in_words(rule),
        threshold=rule.threshold,
        dropped=dropped if drops else None,
        share=share(dropped, valid) if drops else None,
    )


def _dropped_by_behavior(tables: list[Path]) -> dict[str | None, int]:
    rows = scan_table(tables, schema={"behavior": pl.String}, extra_columns="ignore")
    return dict(rows.group_by("behavior").len().collect().iter_rows())


def _last_run(home: Path) -> LastRun | None:
    with opening(home), dg.DagsterInstance.from_config(str(home)) as instance:
        records = instance.get_run_records(limit=1)
    if not records:
        return None
    (record,) = records
    return LastRun(
        job=record.dagster_run.job_name,
        status=record.dagster_run.status.value.lower(),
        began=_written(record.start_time),
        ended=_written(record.end_time),
    )


def _written(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return timestamps.of(seconds)


def _size(path: Path | os.DirEntry[str]) -> int:
    """Bytes of a file, or of all files below a folder that are there to the end."""
    with suppress(FileNotFoundError):
        if not path.is_dir():
            return path.stat().st_size
        with os.scandir(path) as entries:
            return sum(map(_size, entries))
    return 0
