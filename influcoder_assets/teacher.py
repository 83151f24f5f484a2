"""The teacher's assets: gradient features of drawn candidates, the frozen distillation set, and
the rankings that the student learns."""

import functools

import numpy as np
import polars as pl

from influcoder_assets.config import Settings
from influcoder_assets.maker import Task, asset_maker
from influcoder_lib.evaluation.held_out import labelled_draw
from influcoder_lib.rows import open_rows
from influcoder_lib.samples import SAMPLE_SCHEMA, read_sample_blocks, read_samples, to_samples
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.collection import Collected, collect, draw
from influcoder_lib.teacher.distillation_set import DistillationSet
from influcoder_lib.teacher.engine import TeacherSettings, open_teacher
from influcoder_lib.teacher.gradients import GradientFeatures

_LABELLED = 1000
# Where a sample stands is no part of it: a shard that is renamed is no other thing to learn from.
_CANDIDATE_COLUMNS = ("sample_id", "prompt", "response", "label")


def teacher_settings(settings: Settings) -> TeacherSettings:
    """The teacher's part of the user's settings."""
    target = settings.target_model
    adapter = target.adapter
    return TeacherSettings(
        dtype=target.dtype,
        window=target.window,
        tokens_per_batch=target.tokens_per_batch,
        rank=adapter.rank if adapter.source == "fresh" else 0,
        seed=adapter.seed if adapter.source == "fresh" else 0,
        adapter=adapter.path if adapter.source == "peft" else None,
        sketch_dimensions=target.sketch.dimensions,
        sketch_seed=target.sketch.seed,
    )


def _shaping(settings: Settings) -> dict[str, object]:
    """What of the target model's settings shapes a feature; where it lies and batches do not."""
    return settings.target_model.model_dump(
        mode="json", exclude={"path": True, "tokens_per_batch": True, "adapter": {"path"}}
    )


@asset_maker(
    group="teacher",
    inputs=("corpus",),
    sources=("target_model",),
    sharded=True,
    settings=lambda s: {
        **_shaping(s),
        "candidates": s.distillation.candidates_per_shard,
        "draw_seed": s.distillation.seed,
    },
    kinds=("pytorch", "numpy"),
    code_version="2",
)
def gradient_projections(task: Task) -> None:
    """Uncentred gradient features of the candidates drawn from one shard."""
    distillation = task.settings.distillation
    count, seed = distillation.candidates_per_shard, distillation.seed
    drawn = pl.DataFrame(schema=SAMPLE_SCHEMA)
    for samples in read_sample_blocks(task.file("corpus", "samples.parquet", task.shard_name)):
        together = pl.concat([drawn, samples])
        drawn = together[draw(together["sample_id"].to_list(), count, seed)]
    found = _features(task, drawn)
    kept = drawn.filter(~pl.col("sample_id").is_in(list(found.unusable)))
    kept.select(_CANDIDATE_COLUMNS).write_parquet(task.out("candidates.parquet"))
    _write_unusable(found, drawn).write_parquet(task.out("unusable.parquet"))
    np.save(task.out("features.npy"), found.features)
    task.draft.rows = len(kept)
    task.draft.summary |= {
        "candidates": len(kept),
        "unusable": len(found.unusable),
        "computed": found.computed,
        "reused": len(kept) - found.computed,
        "truncated": found.truncated,
        "measured": len(drawn),
        "teacher": teacher_key(task),
    }


@asset_maker(
    group="teacher",
    inputs=("corpus", "gradient_projections", "behavior_queries"),
    sources=("target_model",),
    settings=lambda s: {
        **_shaping(s),
        **s.distillation.model_dump(mode="json", exclude={"influence", "candidates_per_shard"}),
    },
    frozen=True,
    kinds=("numpy",),
    code_version="3",
)
def distillation_set(task: Task) -> None:
    """Frozen queries and candidates with features, splits and centring mean, and a draw of labelled
    samples to compare encoders on."""
    settings = task.settings.distillation
    queries = pl.read_parquet(task.file("behavior_queries", "queries.parquet"))
    queries = queries.unique("sample_id", keep="first", maintain_order=True)
    found = _features(task, queries)
    usable = queries.filter(~pl.col("sample_id").is_in(list(found.unusable)))
    shards = task.each("gradient_projections")
    candidates = pl.concat(
        pl.read_parquet(task.file("gradient_projections", "candidates.parquet", shard))
        for shard in shards
    )
    features = np.concatenate(
        [np.load(task.file("gradient_projections", "features.npy", shard)) for shard in shards]
    )
    frozen = DistillationSet.freeze(
        usable,
        found.features,
        candidates,
        features,
        settings.seed,
        settings.validation,
        settings.test,
    )
    frozen.save(task.draft.folder)
    _labelled(task, frozen).write_parquet(task.out("labelled.parquet"))
    task.draft.rows = len(frozen.candidates)
    task.draft.summary |= {
        **frozen.counts(),
        "unusable_queries": len(found.unusable),
        "shards": len(shards),
        "target_model": task.settings.target_model.path,
        "teacher": teacher_key(task),
    }


def _labelled(task: Task, frozen: DistillationSet) -> pl.DataFrame:
    """A draw of labelled samples that no encoder is trained on."""
    shards = [read_samples(task.file("corpus", "samples.parquet", s)) for s in task.each("corpus")]
    trained_on = frozen.candidates.filter(pl.col("split") == "train")["sample_id"].implode()
    free = pl.concat(shards).filter(~pl.col("sample_id").is_in(trained_on))
    return labelled_draw(free.select(_CANDIDATE_COLUMNS), _LABELLED)


@asset_maker(
    group="teacher",
    inputs=("distillation_set",),
    settings=lambda s: {"influence": s.distillation.influence},
    kinds=("numpy",),
)
def teacher_rankings(task: Task) -> None:
    """Influence and rank of every candidate for every query of the distillation set."""
    frozen = DistillationSet.load(task.folder("distillation_set"))
    influence = frozen.influence(task.settings.distillation.influence)
    np.save(task.out("influence.npy"), influence)
    np.save(task.out("ranks.npy"), rankings.ranks(influence))
    task.draft.rows = len(influence)
    task.draft.summary |= {
        "queries": influence.shape[0],
        "candidates": influence.shape[1],
        "mean_influence": float(influence.mean()),
        "spread_of_influence": float(influence.std()),
    }


def open_engine(task: Task) -> GradientFeatures:
    """The teacher, loaded; it stays loaded for the process."""
    workspace = task.workspace
    settings = teacher_settings(task.settings)
    return open_teacher(workspace.target_files, workspace.data / "models", settings)


def teacher_key(task: Task) -> str:
    """Name of everything that shapes a gradient feature."""
    return teacher_settings(task.settings).key(task.facts.sources["target_model"])


def _features(task: Task, frame: pl.DataFrame) -> Collected:
    rows = open_rows(task.workspace.data / "rows" / "gradients" / teacher_key(task))
    open_once = functools.partial(open_engine, task)
    dimensions = task.settings.target_model.sketch.dimensions
    return collect(open_once, to_samples(frame), rows, dimensions, task.say)


def _write_unusable(found: Collected, drawn: pl.DataFrame) -> pl.DataFrame:
    reasons = pl.DataFrame(
        {"sample_id": list(found.unusable), "reason": list(found.unusable.values())},
        schema={"sample_id": pl.String, "reason": pl.String},
    )
    return reasons.join(drawn.select("sample_id", "file", "row"), on="sample_id", how="left")
