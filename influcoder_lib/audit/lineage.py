"""From any artifact back to the raw files: the manifests of what it was made from, recursively.

A recipe names its inputs by content. Of several manifests with that content, the newest that is not
newer than the artifact made from it is the one that was read, so old versions have their lineage
too, whatever was published since. Where that one was lost, the oldest of those that came after says
the same.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from influcoder_lib.curation.rules import Rule, read_rules
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.manifests import Key, Manifest, key_of, source_input, source_of
from influcoder_lib.store import Store
from influcoder_lib.tables import scan_table

DECIDED = {"keep": "kept.parquet", "drop": "dropped.parquet"}
"""The files of a filtered dataset by decision."""

_SHAPING = ("dtype", "window", "adapter", "sketch")


@dataclass(frozen=True)
class Lineage:
    """An artifact's manifest and those of all that it was made from, nearest first.

    `lost` names inputs whose manifest is not on record any more.
    """

    manifests: tuple[Manifest, ...]
    lost: tuple[str, ...]

    def of(self, asset: str, shard: str | None = None) -> Manifest:
        """The nearest manifest of an asset (and shard).

        Raises:
            StoreError: the artifact was not made from such an asset, or that is lost.
        """
        for manifest in self.manifests:
            if (manifest.asset, manifest.shard) == (asset, shard):
                return manifest
        made = self.manifests[0]
        raise StoreError(
            f"There is no record of the {asset} that this was made from.",
            where=f"{made.asset} {made.shard or ''}, version {made.number}".replace("  ", " "),
            fix="type `influcoder run`, which makes anew what is in force; of a past version the"
            " record is lost",
        )


@dataclass(frozen=True)
class Trace:
    """Where one decided row comes from.

    `raw_hash` is the fingerprint of the raw file as it was read (the first 32 characters of its
    SHA-256), `row` counts from 1. `version` is the encoder's in the registry; it and `mlflow_run`
    are null for the untrained encoder. The target model is the one that the encoder's teacher ran;
    `target_model` is its name in the settings, null where it was not recorded. `queries` has the
    number of queries by behavior and `queries_hash` the fingerprint of all of them. `code_versions`
    and `runs` (Dagster's ids) are by asset, of everything in the lineage.
    """

    sample_id: str
    shard: str
    file: str
    row: int
    raw_hash: str
    encoder: str
    version: str | None
    mlflow_run: str | None
    base_encoder: str
    target_model: str | None
    target_model_hash: str
    target_model_settings: Mapping[str, Any]
    queries: Mapping[str, int]
    queries_hash: str
    rules: tuple[Mapping[str, Any], ...]
    code_versions: Mapping[str, list[str]]
    runs: Mapping[str, list[str]]


def lineage(store: Store, manifest: Manifest) -> Lineage:
    """Walk back from an artifact, one generation after another.

    Raises:
        StoreError: a manifest cannot be read.
    """
    found: dict[tuple[str, str | None, int], Manifest] = {}
    lost: dict[str, None] = {}
    waiting = deque([manifest])
    while waiting:
        made = waiting.popleft()
        if _key(made) in found:
            continue
        found[_key(made)] = made
        for label, content in made.recipe.inputs.items():
            if source_of(label) is not None:
                continue
            origin = _read_for(store, label, content, made)
            if origin is None:
                lost[label] = None
            else:
                waiting.append(origin)
    return Lineage(tuple(found.values()), tuple(lost))


def decided_row(store: Store, filtered: Manifest, sample_id: str) -> dict[str, Any] | None:
    """A sample's row of one version of a filtered dataset, its decision among it; None if absent.

    Raises:
        StoreError: a file is missing or damaged.
    """
    for name in DECIDED.values():
        table = scan_table(store.path(filtered, name))
        rows = table.filter(pl.col("sample_id") == sample_id).collect()
        if len(rows):
            return rows.row(0, named=True)
    return None


def trace(store: Store, filtered: Manifest, sample_id: str) -> Trace:
    """Lead a decided sample back to its raw file, and to all that had a part in the decision.

    `filtered` may be any version of a filtered_dataset.

    Raises:
        DataError: the sample is not in it.
        StoreError: a manifest or file on the way is missing or damaged.
    """
    row = decided_row(store, filtered, sample_id)
    if row is None:
        raise DataError(
            f"There is no sample {sample_id} here.",
            where=f"filtered_dataset {filtered.shard}, version {filtered.number}",
        )
    own = lineage(store, filtered)
    champion = lineage(store, own.of("corpus_embeddings", filtered.shard)).of("champion_encoder")
    trained = _training(store, champion)
    training = lineage(store, trained) if trained else own
    teacher, queries = training.of("distillation_set"), own.of("behavior_queries")
    everything = {_key(each): each for each in (*own.manifests, *training.manifests)}.values()
    return Trace(
        sample_id=sample_id,
        shard=str(filtered.shard),
        file=row["file"],
        row=row["row"],
        raw_hash=own.of("corpus", filtered.shard).recipe.inputs[source_input("shard")],
        encoder=row["encoder"],
        version=champion.summary["version"],
        mlflow_run=trained.summary["mlflow_run"] if trained else champion.summary.get("mlflow_run"),
        base_encoder=(trained or champion).recipe.inputs[source_input("base_encoder")],
        target_model=teacher.summary.get("target_model"),
        target_model_hash=teacher.recipe.inputs[source_input("target_model")],
        target_model_settings={name: teacher.recipe.settings[name] for name in _SHAPING},
        queries={name: queries.summary[name] for name in queries.recipe.settings["behaviors"]},
        queries_hash=queries.fingerprint,
        rules=tuple({"label": rule.label, **rule.to_dict()} for rule in rules(store, own)),
        code_versions=_by_asset(everything, lambda each: each.recipe.code_version),
        runs=_by_asset(everything, lambda each: each.run_id),
    )


def with_content(store: Store, key: Key, content: str | None) -> Manifest | None:
    """The newest manifest of an artifact with this content; None where none is on record.

    Raises:
        StoreError: a manifest cannot be read.
    """
    found = (each for each in store.newest_first(*key) if each.fingerprint == content)
    return next(found, None)


def rules(store: Store, origin: Lineage) -> list[Rule]:
    """The calibrated rules that something was decided by, one a behavior.

    Raises:
        StoreError: they are not on record, or damaged.
    """
    return read_rules(store.path(origin.of("decision_rule"), "rules.json"))


def _read_for(store: Store, label: str, content: str, made: Manifest) -> Manifest | None:
    """The manifest of an input as it was when `made` was made from it."""
    history = store.history(*key_of(label))
    return _in_force([each for each in history if each.fingerprint == content], made)


def _in_force(alike: Sequence[Manifest], made: Manifest) -> Manifest | None:
    """The one of several versions, oldest first, that was the newest when `made` was made."""
    read = [each for each in alike if each.created <= made.created]
    return next(iter((*read[-1:], *alike[:1])), None)


def _training(store: Store, champion: Manifest) -> Manifest | None:
    """The influence_encoder that the champion is; None for the untrained one.

    It is no input of the champion where the champion has beaten later challengers. In a registry
    that began anew, a version is another encoder than it was before.
    """
    version, encoder = champion.summary["version"], champion.summary["encoder"]
    trained = store.history("influence_encoder") if version is not None else []
    own = [
        each
        for each in trained
        if (each.summary["version"], each.summary["encoder"]) == (version, encoder)
    ]
    return _in_force(own, champion)


def _key(manifest: Manifest) -> tuple[str, str | None, int]:
    return manifest.asset, manifest.shard, manifest.number


def _by_asset(
    manifests: Iterable[Manifest], value: Callable[[Manifest], str]
) -> dict[str, list[str]]:
    """Different values by asset, in the order of time."""
    found: dict[str, list[str]] = {}
    for manifest in sorted(manifests, key=lambda each: each.created):
        values = found.setdefault(manifest.asset, [])
        if value(manifest) not in values:
            values.append(value(manifest))
    return dict(sorted(found.items()))
