"""The curation report: what the run did with the corpus, and what changed since the last report."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from influcoder_assets.config import Settings
from influcoder_assets.maker import Task, asset_maker, makers
from influcoder_assets.workspace import Workspace
from influcoder_lib import manifests, report
from influcoder_lib.audit.lineage import with_content
from influcoder_lib.curation.rules import read_rules
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.report.alerts import of_columns, of_folder
from influcoder_lib.report.changes import Basis, Changes, compare, read_decisions
from influcoder_lib.report.kept_sums import KeptSums
from influcoder_lib.report.merging import BehaviorFacts, Context, merge
from influcoder_lib.report.model import Report, read_table
from influcoder_lib.report.standing import (
    DistillationGap,
    Standing,
    distillation_gap,
    read_standing,
)
from influcoder_lib.report.wording import encoder
from influcoder_lib.store import Manifest, Store
from influcoder_lib.tables import load_table

_LABELS = {"positive_label", "hard_negative_label"}


def _settings(settings: Settings) -> dict[str, Any]:
    behaviors = settings.behaviors.items()
    return {
        **settings.report.model_dump(mode="json"),
        # The limits that say whether the encoder holds on a shard.
        "fidelity": settings.fidelity.model_dump(mode="json"),
        "behaviors": {
            name: each.model_dump(mode="json", include=_LABELS) for name, each in behaviors
        },
    }


@asset_maker(
    group="curation",
    inputs=(
        "filtered_dataset",
        "influence_scores",
        "decision_rule",
        "behavior_queries",
        "encoder_comparison",
        "champion_encoder",
        "influence_encoder",
        "distillation_set",
        "gradient_projections",
        "embedding_index",
    ),
    sources=("reviewers_list", "shards"),
    settings=_settings,
    code_version="7",
    kinds=("html", "markdown"),
)
def curation_report(task: Task) -> None:
    """What was dropped, why, what it cost in good data, and what is not as it was: from the
    shards' aggregates, and from the decisions that differ from the last report's."""
    rules = read_rules(task.file("decision_rule", "rules.json"))
    decided = _decided_alike(task)
    sums = KeptSums(
        task.workspace.data / "report_sums", rules, functools.partial(_aggregates, task)
    )
    whole = sums.total({shard: manifest.fingerprint for shard, manifest in decided.items()})
    by_shard = {shard: manifest.summary for shard, manifest in decided.items()}
    merged = merge(whole, by_shard, rules, _context(task, list(decided.values())))
    task.out("report.html").write_text(report.html.render_html(merged))
    markdown = report.markdown.render_markdown(merged)
    task.out("report.md").write_text(markdown)
    task.markdown["report"] = markdown
    task.draft.rows = merged.total.rows_in
    task.draft.summary |= _summary(merged)


def _decided_alike(task: Task) -> dict[str, Manifest]:
    """Decisions by the rules in force, by shard. A shard that fails keeps those of before, which
    do not add up with the others': the report lacks it, and says so.

    Raises:
        DataError: no shard has any.
    """
    made = {shard: task.input("filtered_dataset", shard) for shard in task.each("filtered_dataset")}
    rules = task.input("decision_rule").fingerprint
    program = makers()["filtered_dataset"].node.code_version
    alike = {
        shard: manifest
        for shard, manifest in made.items()
        if manifest.recipe.inputs["decision_rule"] == rules
        and manifest.recipe.code_version == program
    }
    if not alike:
        raise DataError(
            "No shard was decided on by the rules in force, so there is nothing to report.",
            where=f"filtered_dataset, all of its {len(made):,} shards",
            fix="mend the shards that failed: `influcoder status` says what is wrong with them",
        )
    return alike


def _aggregates(task: Task, shard: str) -> dict[str, Any]:
    return json.loads(task.file("filtered_dataset", "aggregates.json", shard).read_text())


def _summary(merged: Report) -> dict[str, Any]:
    changes = merged.changes
    return {
        "headline": merged.headline,
        "rows_in": merged.total.rows_in,
        "kept": merged.total.kept,
        "dropped": merged.total.dropped,
        "quarantined": merged.total.quarantined,
        "warnings": len(merged.warnings),
        "alerts": list(merged.warnings),
        "newly_dropped": changes.newly_dropped if changes else None,
        "restored": changes.restored if changes else None,
    }


def _context(task: Task, decided: Sequence[Manifest]) -> Context:
    settings, sources = task.settings, task.facts.sources
    comparison = json.loads(task.file("encoder_comparison", "comparison.json").read_text())
    champion = task.input("champion_encoder").summary
    queries = query_ids(task.file("behavior_queries", "queries.parquet"))
    versions = {
        "encoder in use": encoder(champion["version"]),
        "encoder fingerprint": champion["encoder"],
        "target model": f"{settings.target_model.path}, {sources['target_model']}",
        "base encoder": f"{settings.encoder.path}, {sources['base_encoder']}",
    }
    return Context(
        created=max(manifest.created for manifest in decided),
        headline=comparison["headline"],
        tables=[read_table(table) for table in comparison["tables"]],
        versions=versions,
        expected_shards=sorted(task.facts.shards),
        most_dropped=settings.report.most_dropped,
        behaviors={
            name: BehaviorFacts(len(queries[name]), each.positive_label, each.hard_negative_label)
            for name, each in settings.behaviors.items()
        },
        standing=_standing(task, queries),
        changes=_changes(task),
        unmatched=task.workspace.reviewed.unmatched(
            sorted(task.facts.shards), sources["reviewers_list"]
        ),
    )


def warnings_of(workspace: Workspace) -> list[str]:
    """What of a home needs a look: what the report in force warns of, and what of the corpus folder
    no report knows of."""
    reported = workspace.store.current("curation_report")
    alerts = reported.summary.get("alerts", ()) if reported is not None else ()
    read = {shard: workspace.store.current("corpus", shard) for shard in workspace.found.files}
    without = {
        shard: manifest.summary["without_columns"]
        for shard, manifest in read.items()
        if manifest is not None and "without_columns" in manifest.summary
    }
    return [*of_folder(workspace.found.others), *of_columns(without), *alerts]


def _standing(task: Task, queries: Mapping[str, frozenset[str]]) -> Standing:
    drawn = _by_shard(_inputs(task), "gradient_projections")
    gap = gap_of(task.workspace.store, task.input("distillation_set"), drawn, queries)
    return read_standing(
        task.input("champion_encoder").summary,
        task.input("influence_encoder").summary["version"],
        _fidelity(task),
        gap,
    )


def _fidelity(task: Task) -> dict[str, Any]:
    """What was measured on each shard of the encoder in use; one that fails keeps what was measured
    of the encoder before."""
    encoder = task.input("champion_encoder").fingerprint
    scored = {
        shard: task.input("influence_scores", shard) for shard in task.each("influence_scores")
    }
    return {
        shard: manifest.summary.get("fidelity")
        for shard, manifest in scored.items()
        if manifest.recipe.inputs["champion_encoder"] == encoder
    }


def gap_of(
    store: Store, frozen: Manifest, drawn: Mapping[str, str], queries: Mapping[str, frozenset[str]]
) -> DistillationGap:
    """How far a distillation set has fallen behind today's candidates (content by shard) and
    queries (ids by behavior)."""
    made_from = frozen.recipe.inputs
    # The set itself lacks queries that cannot be learnt from, today or ever.
    asked = _past_file(store, made_from, "behavior_queries", "queries.parquet")
    known = load_table(asked or store.path(frozen, "queries.parquet"))["sample_id"].to_list()
    return distillation_gap(_by_shard(made_from, "gradient_projections"), drawn, known, queries)


def _changes(task: Task) -> Changes | None:
    """Against the newest report that was made from other decisions; None for the first report.

    So the report of an earlier state is never compared with itself, however often it is made. What
    is compared is all decisions that stood: a shard that a report lacks is neither gone nor new.
    """
    store, inputs = task.workspace.store, _inputs(task)
    decisions = _by_shard(inputs, "filtered_dataset")
    for manifest in store.newest_first("curation_report"):
        if _by_shard(manifest.recipe.inputs, "filtered_dataset") != decisions:
            before = _basis(store, manifest.recipe.inputs, manifest.created)
            return compare(before, _basis(store, inputs, "now"))
    return None


def _inputs(task: Task) -> Mapping[str, str]:
    """Content of every artifact in force, by the name it has in a recipe."""
    return {manifests.label(key): content for key, (_, content) in task.facts.recorded.items()}


def _by_shard(inputs: Mapping[str, str], asset: str) -> dict[str, str]:
    """Content of one sharded asset, by shard."""
    return {
        name.removeprefix(f"{asset}/"): content
        for name, content in inputs.items()
        if name.startswith(f"{asset}/")
    }


def _past_file(store: Store, inputs: Mapping[str, str], asset: str, name: str) -> Path | None:
    """A file of what something was made from, if it is still there."""
    manifest = with_content(store, (asset, None), inputs.get(asset))
    try:
        return store.path(manifest, name) if manifest else None
    except StoreError:
        return None


def _basis(store: Store, inputs: Mapping[str, str], created: str) -> Basis:
    champion = with_content(store, ("champion_encoder", None), inputs.get("champion_encoder"))
    rules = _past_file(store, inputs, "decision_rule", "rules.json")
    queries = _past_file(store, inputs, "behavior_queries", "queries.parquet")
    decisions = _by_shard(inputs, "filtered_dataset")
    return Basis(
        created=created,
        encoder=_encoder(champion.summary) if champion else None,
        rules=read_rules(rules) if rules else None,
        queries=query_ids(queries) if queries else None,
        shards=decisions,
        read=functools.partial(_read, store, decisions),
    )


def _encoder(champion: Mapping[str, Any]) -> str:
    return f"{encoder(champion['version'])} ({champion['encoder'][:8]})"


def query_ids(path: Path) -> dict[str, frozenset[str]]:
    """Ids of the queries, by behavior."""
    groups = load_table(path).group_by("behavior").agg("sample_id")
    return {behavior: frozenset(ids) for behavior, ids in groups.iter_rows()}


def _read(store: Store, decisions: Mapping[str, str], shard: str) -> pl.DataFrame:
    manifest = with_content(store, ("filtered_dataset", shard), decisions[shard])
    if manifest is None:
        raise StoreError("These decisions are not stored any more.", where=f"shard {shard}")
    return read_decisions([store.path(manifest, f"{name}.parquet") for name in ("kept", "dropped")])
