"""The assets that use the champion: embeddings, index, scores, rules, decisions and the report."""

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from influcoder_assets.config import Settings
from influcoder_assets.corpus import read_reference
from influcoder_assets.encoder import champion_vectors
from influcoder_assets.maker import Task, asset_maker
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
from influcoder_lib.report.aggregates import shard_aggregates
from influcoder_lib.report.html import render_html
from influcoder_lib.report.markdown import render_markdown
from influcoder_lib.report.model import merge, read_table
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
    inputs=("champion_encoder", "query_embeddings", "distillation_set"),
    sources=("known_good",),
    kinds=("parquet",),
)
def calibration_scores(task: Task) -> None:
    """Scores of held-back candidates and of known-good samples: what thresholds are set on."""
    candidates = pl.read_parquet(task.file("distillation_set", "candidates.parquet"))
    held_back = candidates.filter(pl.col("split") != "train")
    queries = _query_vectors(task)
    champion = champion_vectors(task)
    vectors = champion.encode(to_samples(held_back))
    calibration = score_table(held_back["sample_id"].to_list(), vectors, queries)
    calibration.write_parquet(task.out("candidates.parquet"))
    task.draft.rows = len(calibration)
    task.draft.summary |= {"candidates": len(calibration)}
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
    inputs=("corpus_embeddings", "query_embeddings", "calibration_scores"),
    sharded=True,
    kinds=("parquet",),
)
def influence_scores(task: Task) -> None:
    """Score of every sample of one shard for every behavior, with percentile and best query."""
    shard = task.shard_name
    ids = pl.read_parquet(task.file("corpus_embeddings", "ids.parquet", shard))
    vectors = read_vectors(task.file("corpus_embeddings", "segment.faiss", shard))
    queries = _query_vectors(task)
    calibration = pl.read_parquet(task.file("calibration_scores", "candidates.parquet"))
    scored = with_percentiles(
        score_table(ids["sample_id"].to_list(), vectors, queries), calibration, list(queries)
    )
    encoder = str(task.input("corpus_embeddings", shard).summary["encoder"])
    scored = scored.with_columns(encoder=pl.lit(encoder))
    scored.write_parquet(task.out("scores.parquet"))
    task.draft.rows = len(scored)
    highest = {f"highest_{name}": scored[f"{name}_max"].max() for name in queries}
    task.draft.summary |= {**highest, "encoder": encoder}


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


@asset_maker(
    group="curation",
    inputs=(
        "filtered_dataset",
        "decision_rule",
        "encoder_comparison",
        "champion_encoder",
        "embedding_index",
    ),
    kinds=("html", "markdown"),
)
def curation_report(task: Task) -> None:
    """What was dropped, why, and what it cost in good data: from the shards' aggregates only."""
    shards = task.each("filtered_dataset")
    paths = [task.file("filtered_dataset", "aggregates.json", shard) for shard in shards]
    comparison = json.loads(task.file("encoder_comparison", "comparison.json").read_text())
    champion = task.input("champion_encoder")
    settings, sources = task.settings, task.facts.sources
    report = merge(
        [json.loads(path.read_text()) for path in paths],
        _rules(task),
        [read_table(table) for table in comparison["tables"]],
        comparison["headline"],
        {
            "encoder in use": _in_use(champion.summary),
            "encoder fingerprint": _encoder(task),
            "target model": f"{settings.target_model.path}, {sources['target_model']}",
            "base encoder": f"{settings.encoder.path}, {sources['base_encoder']}",
        },
        max(task.input("filtered_dataset", shard).created for shard in shards),
        expected_shards=sorted(task.facts.shards),
    )
    task.out("report.html").write_text(render_html(report))
    markdown = render_markdown(report)
    task.out("report.md").write_text(markdown)
    task.markdown["report"] = markdown
    task.draft.rows = report.total.rows_in
    task.draft.summary |= {
        "headline": report.headline,
        "rows_in": report.total.rows_in,
        "kept": report.total.kept,
        "dropped": report.total.dropped,
        "quarantined": report.total.quarantined,
        "warnings": len(report.warnings),
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


def _in_use(champion: Mapping[str, object]) -> str:
    version = champion["version"]
    return f"version {version} of the registry" if version else "the untrained base encoder"


def _encoder(task: Task) -> str:
    return str(task.input("champion_encoder").summary["encoder"])
