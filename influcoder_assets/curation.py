"""The assets that use the champion: embeddings, index, scores, rules and decisions."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_assets.champion import calibration_set, champion_vectors
from influcoder_assets.config import Settings
from influcoder_assets.corpus import read_reference, reference_settings
from influcoder_assets.maker import Task, asset_maker, makers
from influcoder_lib.curation import index
from influcoder_lib.curation.decisions import decide, read_overrides
from influcoder_lib.curation.rules import Rule, RuleSettings, calibrate, read_rules
from influcoder_lib.curation.score_table import (
    QueryVectors,
    Scorer,
    beside,
    for_rules,
    score_table,
)
from influcoder_lib.errors import StoreError
from influcoder_lib.evaluation import shard_fidelity
from influcoder_lib.evaluation.shard_fidelity import ShardFidelity
from influcoder_lib.report.aggregates import shard_aggregates
from influcoder_lib.samples import read_sample_blocks, to_samples
from influcoder_lib.tables import (
    GROUP_ROWS,
    TableReader,
    TableWriter,
    load_table,
    read_blocks,
    scan_table,
    writing,
)


@asset_maker(
    group="curation",
    inputs=("behavior_queries", "champion_encoder"),
    kinds=("numpy",),
    code_version="3",
    settings=lambda s: {
        "behaviors": {n: {"resemblance": each.resemblance} for n, each in s.behaviors.items()}
    },
)
def query_embeddings(task: Task) -> None:
    """Unit vectors of the behaviors' queries, by the champion, for scores with as much plain
    resemblance in them as each behavior asks for."""
    queries = load_table(task.file("behavior_queries", "queries.parquet"))
    champion = champion_vectors(task)
    vectors = np.concatenate(
        [
            champion.encode_queries(to_samples(own), task.settings.behaviors[str(name)].resemblance)
            for (name,), own in queries.group_by("behavior", maintain_order=True)
        ]
    )
    queries.write_parquet(task.out("queries.parquet"))
    np.save(task.out("queries.npy"), vectors)
    task.draft.rows = len(queries)
    task.draft.summary |= {"encoder": _encoder(task), "dimension": vectors.shape[1]}


@asset_maker(
    group="curation",
    inputs=("corpus", "champion_encoder"),
    sharded=True,
    kinds=("faiss",),
    code_version="3",
)
def corpus_embeddings(task: Task) -> None:
    """Unit vectors of one shard's samples, by the champion: a segment of the index."""
    table = task.file("corpus", "samples.parquet", task.shard_name)
    total = task.input("corpus", task.shard_name).rows
    encoder = champion_vectors(task)
    encoder.embed(map(to_samples, read_sample_blocks(table)), total)
    index.write_segment(map(encoder.stored, _ids(table)), task.draft.folder)
    with writing(task.out("ids.parquet")) as ids:
        for block in read_blocks(table, ["sample_id"]):
            ids.add(block)
    task.draft.rows = total
    task.draft.summary |= {
        "embedded": encoder.computed,
        "reused": total - encoder.computed,
        "truncated": sum(map(encoder.truncated, _ids(table))),
        "encoder": _encoder(task),
    }


def _ids(table: Path) -> Iterator[list[str]]:
    return (block["sample_id"].to_list() for block in read_blocks(table, ["sample_id"]))


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
    settings=lambda s: {"behaviors": sorted(s.behaviors), **reference_settings(s)},
    kinds=("parquet",),
    code_version="3",
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
    np.save(task.out("held_out_queries.npy"), champion.encode_queries(calibration.samples()))
    task.draft.rows = len(scored)
    task.draft.summary |= {"candidates": len(scored), "held_out_queries": len(calibration.queries)}
    for name, behavior in task.settings.behaviors.items():
        if behavior.known_good is None:
            continue
        setting = f"behaviors.{name}.known_good"
        good = read_reference(task.settings.corpus, behavior.known_good, setting)
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
    queries = _query_vectors(task)
    calibration = load_table(task.file("calibration_scores", "candidates.parquet"))
    encoder = str(task.input("corpus_embeddings", shard).summary["encoder"])
    scorer = Scorer(queries, calibration, encoder, _scored_before(task))
    drawn = load_table(task.file("gradient_projections", "candidates.parquet", shard))
    own: dict[str, np.ndarray] = {}
    with writing(task.out("scores.parquet")) as table:
        for ids, vectors in _embedded(task):
            table.add(scorer.score(ids, vectors))
            is_drawn = ids.is_in(drawn["sample_id"].implode())
            own |= zip(ids.filter(is_drawn), vectors[is_drawn], strict=True)
    task.draft.rows = table.rows
    highest = scan_table(task.out("scores.parquet")).select(
        pl.max(f"{name}_max").alias(f"highest_{name}") for name in queries
    )
    task.draft.summary |= {
        "scored": scorer.scored,
        "reused": table.rows - scorer.scored,
        **highest.collect().row(0, named=True),
        "encoder": encoder,
        "fidelity": asdict(_fidelity(task, own)),
    }


def _embedded(task: Task) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """Ids (n,) and vectors (n, d) of the shard in hand, block by block."""
    ids = TableReader(task.file("corpus_embeddings", "ids.parquet", task.shard))
    stored = task.file("corpus_embeddings", index.VECTORS, task.shard)
    for vectors in index.read_blocks(stored, GROUP_ROWS):
        yield ids.take(len(vectors))["sample_id"], vectors


def _scored_before(task: Task) -> pl.DataFrame:
    """Scores that this shard's samples have from the same queries, calibration and encoder."""
    store = task.workspace.store
    before = store.current("influence_scores", task.shard)
    fixed = ("query_embeddings", "calibration_scores", "champion_encoder")
    empty = pl.DataFrame(schema={"sample_id": pl.String})
    program = makers()["influence_scores"].node.code_version
    if before is None or before.recipe.code_version != program:
        return empty
    if any(before.recipe.inputs.get(n) != task.input(n).fingerprint for n in fixed):
        return empty
    try:
        return load_table(store.path(before, "scores.parquet"))
    except StoreError as error:
        task.say(f"scores every sample, as the scores of before cannot be used: {error.problem}")
        return empty


def _fidelity(task: Task, own: Mapping[str, np.ndarray]) -> ShardFidelity:
    """Fidelity on the drawn candidates, whose vectors `own` has by sample id."""
    shard = task.shard_name
    calibration = calibration_set(task)
    drawn = load_table(task.file("gradient_projections", "candidates.parquet", shard))
    if task.input("gradient_projections", shard).summary["teacher"] != calibration.teacher:
        return shard_fidelity.unmeasured(calibration)
    settings = task.settings.fidelity
    return shard_fidelity.measure(
        calibration,
        np.load(task.file("calibration_scores", "held_out_queries.npy"), allow_pickle=False),
        drawn["sample_id"].to_list(),
        np.array([own[sample_id] for sample_id in drawn["sample_id"]]),
        np.load(task.file("gradient_projections", "features.npy", shard), allow_pickle=False),
        settings.warn_below,
        settings.fail_below,
    )


@asset_maker(
    group="curation",
    inputs=("calibration_scores",),
    settings=lambda s: {
        "behaviors": {
            n: {"rule": each.rule.model_dump(mode="json")} for n, each in s.behaviors.items()
        }
    },
    kinds=("json",),
)
def decision_rule(task: Task) -> None:
    """The threshold of every behavior, set on held-back candidates, never on the corpus."""
    calibration = load_table(task.file("calibration_scores", "candidates.parquet"))
    rules = []
    for settings in rule_settings(task.settings):
        column = settings.score_column
        good = None
        if task.settings.behaviors[settings.behavior].known_good is not None:
            name = f"known_good_{settings.behavior}.parquet"
            good = load_table(task.file("calibration_scores", name))[column].to_numpy()
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
    code_version="4",
    sharded=True,
    kinds=("parquet",),
)
def filtered_dataset(task: Task) -> None:
    """One shard's samples, kept and dropped, each dropped one with its reason."""
    rules = _rules(task)
    with writing(task.out("kept.parquet")) as kept, writing(task.out("dropped.parquet")) as dropped:
        aggregates = _aggregates(task, _written(_decided(task, rules), kept, dropped), rules)
    task.out("aggregates.json").write_text(json.dumps(aggregates, indent=1))
    task.draft.rows = kept.rows + dropped.rows
    task.draft.summary |= {
        name: aggregates[name] for name in ("rows_in", "kept", "dropped", "quarantined")
    }


def _decided(task: Task, rules: Sequence[Rule]) -> Iterator[pl.DataFrame]:
    """The decided samples of the shard in hand, block by block."""
    overrides = read_overrides(task.settings.overrides) if task.settings.overrides else []
    statistics = {rule.behavior: rule.statistic for rule in rules}
    scores = TableReader(task.file("influence_scores", "scores.parquet", task.shard))
    for samples in read_sample_blocks(task.file("corpus", "samples.parquet", task.shard)):
        scored = beside(samples, scores.take(len(samples)))
        yield decide(for_rules(scored, statistics), rules, overrides)


def _written(
    blocks: Iterable[pl.DataFrame], kept: TableWriter, dropped: TableWriter
) -> Iterator[pl.DataFrame]:
    """The same blocks, written as they pass."""
    for decided in blocks:
        kept.add(decided.filter(pl.col("decision") == "keep"))
        dropped.add(decided.filter(pl.col("decision") == "drop"))
        yield decided


def rule_settings(settings: Settings) -> list[RuleSettings]:
    """The rules that the user asks for, one a behavior."""
    return [
        RuleSettings(name, each.rule.kind, each.rule.method, each.rule.value, each.rule.statistic)
        for name, each in settings.behaviors.items()
    ]


def _rules(task: Task) -> list[Rule]:
    return read_rules(task.file("decision_rule", "rules.json"))


def _query_vectors(task: Task) -> dict[str, QueryVectors]:
    queries = load_table(task.file("query_embeddings", "queries.parquet"))
    vectors = np.load(task.file("query_embeddings", "queries.npy"), allow_pickle=False)
    return {
        name: QueryVectors(
            queries.filter(pl.col("behavior") == name)["sample_id"].to_list(),
            vectors[(queries["behavior"] == name).to_numpy()],
        )
        for name in task.settings.behaviors
    }


def _aggregates(
    task: Task, blocks: Iterable[pl.DataFrame], rules: Sequence[Rule]
) -> dict[str, object]:
    shard = task.shard_name
    quarantine = load_table(task.file("corpus", "quarantine.parquet", shard))
    reasons = quarantine.group_by("reason").len().sort("reason")
    queries = load_table(task.file("behavior_queries", "queries.parquet"))
    teacher = task.input("gradient_projections", shard).summary
    return shard_aggregates(
        shard,
        blocks,
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
