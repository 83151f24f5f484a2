"""The assets that use the champion: embeddings, index, scores, rules and decisions."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_assets.champion import calibration_set, champion_vectors
from influcoder_assets.config import Settings
from influcoder_assets.corpus import read_reference
from influcoder_assets.maker import MAKERS, Task, asset_maker
from influcoder_lib.curation.decisions import (
    Rule,
    RuleSettings,
    calibrate,
    decide,
    read_overrides,
)
from influcoder_lib.curation.index import read_vectors, write_segment
from influcoder_lib.curation.score_table import (
    QueryVectors,
    for_rules,
    score_table,
    with_percentiles,
)
from influcoder_lib.errors import StoreError
from influcoder_lib.evaluation import shard_fidelity
from influcoder_lib.evaluation.shard_fidelity import ShardFidelity
from influcoder_lib.report.aggregates import shard_aggregates
from influcoder_lib.samples import read_samples, to_samples


@asset_maker(group="curation", inputs=("behavior_queries", "champion_encoder"), kinds=("faiss",))
def query_embeddings(task: Task) -> None:
    """Unit vectors of the behaviors' queries, by the champion."""
    queries = pl.read_parquet(task.file("behavior_queries", "queries.parquet"))
    vectors = champion_vectors(task).encode(to_samples(queries))
    queries.write_parquet(task.out("queries.parquet"))
    write_segment(vectors, task.out("queries.faiss"))
    task.draft.rows = len(queries)
    task.draft.summary |= {"encoder": _encoder(task), "dimension": vectors.shape[1]}


@asset_maker(
    group="curation", inputs=("corpus", "champion_encoder"), sharded=True, kinds=("faiss",)
)
def corpus_embeddings(task: Task) -> None:
    """Unit vectors of one shard's samples, by the champion: a segment of the index."""
    samples = read_samples(task.file("corpus", "samples.parquet", task.shard_name))
    encoder = champion_vectors(task)
    vectors = encoder.encode(to_samples(samples))
    write_segment(vectors, task.out("segment.faiss"))
    samples.select("sample_id").write_parquet(task.out("ids.parquet"))
    task.draft.rows = len(samples)
    task.draft.summary |= {
        "embedded": encoder.computed,
        "reused": len(samples) - encoder.computed,
        "truncated": encoder.truncated(to_samples(samples)),
        "encoder": _encoder(task),
    }


@asset_maker(group="curation", inputs=("corpus_embeddings",), kinds=("faiss",))
def embedding_index(task: Task) -> None:
    """The list of index segments, searched together; nothing is rebuilt when a shard arrives."""
    manifests = {
        shard: task.input("corpus_embeddings", shard) for shard in task.each("corpus_embeddings")
    }
    segments = [
        {"shard": shard, "fingerprint": manifest.fingerprint, "rows": manifest.rows}
        for shard, manifest in manifests.items()
    ]
    task.out("segments.json").write_text(json.dumps(segments, indent=1))
    task.draft.rows = sum(manifest.rows for manifest in manifests.values())
    task.draft.summary |= {"segments": len(segments), "vectors": task.draft.rows}


@asset_maker(
    group="curation",
    inputs=("champion_encoder", "query_embeddings"),
    sources=("known_good",),
    kinds=("parquet",),
    code_version="2",
)
def calibration_scores(task: Task) -> None:
    """Scores of the champion's held-back candidates and of known-good samples, which thresholds are
    set on; and the vectors of the held-out queries, which fidelity is measured with."""
    calibration = calibration_set(task)
    queries = _query_vectors(task)
    champion = champion_vectors(task)
    held_back = to_samples(calibration.candidates)
    scored = score_table(
        [sample.sample_id for sample in held_back], champion.encode(held_back), queries
    )
    scored.write_parquet(task.out("candidates.parquet"))
    write_segment(champion.encode(calibration.samples()), task.out("held_out_queries.faiss"))
    task.draft.rows = len(scored)
    task.draft.summary |= {"candidates": len(scored), "held_out_queries": len(calibration.queries)}
    for name, behavior in task.settings.behaviors.items():
        if behavior.known_good is None:
            continue
        good = read_reference(task, behavior.known_good, f"behaviors.{name}.known_good")
        vectors = champion.encode(to_samples(good))
        own = score_table(good["sample_id"].to_list(), vectors, {name: queries[name]})
        own.write_parquet(task.out(f"known_good_{name}.parquet"))
        task.draft.summary[f"known_good_{name}"] = len(own)


@asset_maker(
    group="curation",
    inputs=(
        "corpus_embeddings",
        "query_embeddings",
        "calibration_scores",
        "gradient_projections",
        "champion_encoder",
    ),
    settings=lambda s: s.fidelity.model_dump(mode="json"),
    sharded=True,
    kinds=("parquet",),
    code_version="2",
)
def influence_scores(task: Task) -> None:
    """Score of every sample of one shard for every behavior, with percentile and best query; and
    how well the champion follows the true gradients of this shard's candidates."""
    shard = task.shard_name
    ids = pl.read_parquet(task.file("corpus_embeddings", "ids.parquet", shard))["sample_id"]
    vectors = read_vectors(task.file("corpus_embeddings", "segment.faiss", shard))
    queries = _query_vectors(task)
    known = _scored_before(task)
    new = (~ids.is_in(known["sample_id"].implode())).to_numpy()
    calibration = pl.read_parquet(task.file("calibration_scores", "candidates.parquet"))
    scored = with_percentiles(
        score_table(ids.filter(new).to_list(), vectors[new], queries), calibration, list(queries)
    )
    encoder = str(task.input("corpus_embeddings", shard).summary["encoder"])
    scored = pl.concat([known, scored.with_columns(encoder=pl.lit(encoder))], how="diagonal")
    scored = ids.to_frame().join(scored, on="sample_id", how="left", maintain_order="left")
    scored.write_parquet(task.out("scores.parquet"))
    task.draft.rows = len(scored)
    highest = {f"highest_{name}": scored[f"{name}_max"].max() for name in queries}
    task.draft.summary |= {
        "scored": int(new.sum()),
        "reused": int((~new).sum()),
        **highest,
        "encoder": encoder,
        "fidelity": asdict(_fidelity(task, ids.to_list(), vectors)),
    }


def _scored_before(task: Task) -> pl.DataFrame:
    """Scores that this shard's samples have from the same queries, calibration and encoder."""
    store = task.workspace.store
    before = store.current("influence_scores", task.shard)
    fixed = ("query_embeddings", "calibration_scores", "champion_encoder")
    empty = pl.DataFrame(schema={"sample_id": pl.String})
    if before is None or before.recipe.code_version != MAKERS["influence_scores"].node.code_version:
        return empty
    if any(before.recipe.inputs.get(n) != task.input(n).fingerprint for n in fixed):
        return empty
    try:
        return pl.read_parquet(store.path(before, "scores.parquet"))
    except StoreError as error:
        task.say(f"scores every sample, as the scores of before cannot be used: {error.problem}")
        return empty


def _fidelity(task: Task, sample_ids: list[str], vectors: np.ndarray) -> ShardFidelity:
    shard = task.shard_name
    calibration = calibration_set(task)
    drawn = pl.read_parquet(task.file("gradient_projections", "candidates.parquet", shard))
    if task.input("gradient_projections", shard).summary["teacher"] != calibration.teacher:
        return shard_fidelity.unmeasured(calibration)
    at = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    settings = task.settings.fidelity
    return shard_fidelity.measure(
        calibration,
        read_vectors(task.file("calibration_scores", "held_out_queries.faiss")),
        drawn["sample_id"].to_list(),
        vectors[[at[sample_id] for sample_id in drawn["sample_id"]]],
        np.load(task.file("gradient_projections", "features.npy", shard), allow_pickle=False),
        settings.warn_below,
        settings.fail_below,
    )


@asset_maker(
    group="curation",
    inputs=("calibration_scores",),
    settings=lambda s: {
        name: each.rule.model_dump(mode="json") for name, each in s.behaviors.items()
    },
    kinds=("json",),
)
def decision_rule(task: Task) -> None:
    """The threshold of every behavior, set on held-back candidates, never on the corpus."""
    calibration = pl.read_parquet(task.file("calibration_scores", "candidates.parquet"))
    rules = []
    for settings in rule_settings(task.settings):
        column = f"{settings.behavior}_{settings.statistic}"
        good = None
        if task.settings.behaviors[settings.behavior].known_good is not None:
            name = f"known_good_{settings.behavior}.parquet"
            good = pl.read_parquet(task.file("calibration_scores", name))[column].to_numpy()
        rules.append(calibrate(settings, calibration[column].to_numpy(), good))
    task.out("rules.json").write_text(json.dumps([rule.to_dict() for rule in rules], indent=1))
    task.draft.rows = len(rules)
    task.draft.summary |= {f"threshold_{rule.behavior}": rule.threshold for rule in rules}


@asset_maker(
    group="curation",
    inputs=(
        "corpus",
        "gradient_projections",
        "influence_scores",
        "decision_rule",
        "behavior_queries",
        "corpus_embeddings",
    ),
    sources=("overrides",),
    code_version="2",
    sharded=True,
    kinds=("parquet",),
)
def filtered_dataset(task: Task) -> None:
    """One shard's samples, kept and dropped, each dropped one with its reason."""
    shard = task.shard_name
    rules = _rules(task)
    samples = read_samples(task.file("corpus", "samples.parquet", shard))
    scored = pl.read_parquet(task.file("influence_scores", "scores.parquet", shard))
    overrides = read_overrides(task.settings.overrides) if task.settings.overrides else []
    statistics = {rule.behavior: rule.statistic for rule in rules}
    joined = samples.join(scored, on="sample_id", how="left", maintain_order="left")
    decided = decide(for_rules(joined, statistics), rules, overrides)
    for decision, name in (("keep", "kept"), ("drop", "dropped")):
        decided.filter(pl.col("decision") == decision).write_parquet(task.out(f"{name}.parquet"))
    aggregates = _aggregates(task, decided, rules)
    task.out("aggregates.json").write_text(json.dumps(aggregates, indent=1))
    task.draft.rows = len(decided)
    task.draft.summary |= {
        name: aggregates[name] for name in ("rows_in", "kept", "dropped", "quarantined")
    }


def rule_settings(settings: Settings) -> list[RuleSettings]:
    """The rules that the user asks for, one a behavior."""
    return [
        RuleSettings(name, each.rule.kind, each.rule.method, each.rule.value, each.rule.statistic)
        for name, each in settings.behaviors.items()
    ]


def _rules(task: Task) -> list[Rule]:
    return read_rules(task.file("decision_rule", "rules.json"))


def read_rules(path: Path) -> list[Rule]:
    """The calibrated rules of a stored decision_rule."""
    return [Rule.from_dict(values) for values in json.loads(path.read_text())]


def _query_vectors(task: Task) -> dict[str, QueryVectors]:
    queries = pl.read_parquet(task.file("query_embeddings", "queries.parquet"))
    vectors = read_vectors(task.file("query_embeddings", "queries.faiss"))
    return {
        name: QueryVectors(
            queries.filter(pl.col("behavior") == name)["sample_id"].to_list(),
            vectors[(queries["behavior"] == name).to_numpy()],
        )
        for name in task.settings.behaviors
    }


def _aggregates(task: Task, decided: pl.DataFrame, rules: list[Rule]) -> dict[str, object]:
    shard = task.shard_name
    quarantine = pl.read_parquet(task.file("corpus", "quarantine.parquet", shard))
    reasons = quarantine.group_by("reason").len().sort("reason")
    queries = pl.read_parquet(task.file("behavior_queries", "queries.parquet"))
    teacher = task.input("gradient_projections", shard).summary
    return shard_aggregates(
        shard,
        decided,
        rules,
        dict(reasons.iter_rows()),
        {
            "teacher": teacher["truncated"],
            "teacher_measured": teacher["measured"],
            "encoder": task.input("corpus_embeddings", shard).summary["truncated"],
        },
        {row["sample_id"]: row for row in queries.iter_rows(named=True)},
        rows_in=int(task.input("corpus", shard).summary["rows_in"]),
    )


def _encoder(task: Task) -> str:
    return str(task.input("champion_encoder").summary["encoder"])
