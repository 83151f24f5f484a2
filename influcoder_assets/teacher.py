"""The teacher's assets: the adapter, gradient features of drawn candidates, the frozen distillation
set, and the rankings that the student learns."""

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from influcoder_assets.config import Settings
from influcoder_assets.maker import Task, asset_maker
from influcoder_assets.settings_models import WarmupAdapter
from influcoder_lib import fingerprint, teacher
from influcoder_lib.errors import DataError
from influcoder_lib.samples import read_sample_blocks, to_samples
from influcoder_lib.tables import load_table
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.collection import Collected, collect, draw_rows, share_out
from influcoder_lib.teacher.distillation_set import DistillationSet
from influcoder_lib.teacher.settings import TeacherSettings

if TYPE_CHECKING:
    from influcoder_lib.teacher.gradients import GradientFeatures

_LABELLED = 1000
# Where a sample stands is no part of it: a shard that is renamed is no other thing to learn from.
_CANDIDATE_COLUMNS = ("sample_id", "prompt", "response", "label")


def teacher_settings(settings: Settings, adapter_folder: Path | None) -> TeacherSettings:
    """The teacher's part of the user's settings, with the folder of a trained adapter."""
    target = settings.target_model
    adapter = target.adapter
    return TeacherSettings(
        dtype=target.dtype,
        window=target.window,
        tokens_per_batch=target.tokens_per_batch,
        rank=adapter.rank if adapter.source == "fresh" else 0,
        seed=adapter.seed if adapter.source == "fresh" else 0,
        adapter=adapter_folder,
        sketch_dimensions=target.sketch.dimensions,
        sketch_seed=target.sketch.seed,
    )


def _settings(task: Task) -> TeacherSettings:
    adapter = task.settings.target_model.adapter
    folder = adapter.path if adapter.source == "peft" else None
    if adapter.source == "warmup":
        folder = task.folder("target_adapter")
    return teacher_settings(task.settings, folder)


def _shaping(settings: Settings) -> dict[str, object]:
    """What of the target model's settings shapes a feature; where it lies and batches do not."""
    return settings.target_model.model_dump(
        mode="json", exclude={"path": True, "tokens_per_batch": True, "adapter": {"path"}}
    )


def _warmup_shaping(settings: Settings) -> dict[str, object]:
    """What of the settings shapes an adapter that is trained here; of any other, nothing."""
    target = settings.target_model
    if target.adapter.source != "warmup":
        return {"source": target.adapter.source}
    return target.model_dump(mode="json", include={"dtype", "window", "adapter"})


@asset_maker(
    group="teacher",
    inputs=("corpus",),
    sources=("target_model",),
    settings=_warmup_shaping,
    frozen=True,
    kinds=("pytorch",),
    code_version="2",
)
def target_adapter(task: Task) -> None:
    """The LoRA adapter that gradients are taken of, if it is to be trained here: once, on samples
    drawn from the corpus as it is then. Otherwise a note of where it comes from."""
    adapter = task.settings.target_model.adapter
    task.draft.summary |= {"source": adapter.source}
    task.out("source.json").write_text(json.dumps({"source": adapter.source}))
    if adapter.source == "warmup":
        _warm_up(task, adapter)


def _warm_up(task: Task, adapter: WarmupAdapter) -> None:
    workspace = task.workspace
    drawn = to_samples(draw_rows(_corpus_blocks(task), adapter.samples, adapter.seed))
    training = adapter.model_dump(exclude={"source", "samples"})
    with tempfile.TemporaryDirectory() as folder:
        last = teacher.loading.warm_up_target(
            workspace.target_files,
            workspace.data / "models",
            teacher_settings(task.settings, None),
            teacher.warmup.WarmupSettings(**training),
            drawn,
            Path(folder) / "warm-up",
            task.say,
        )[-1]
        for name in teacher.warmup.ADAPTER_FILES:
            shutil.copy(last.folder / name, task.out(name))
    task.draft.rows = len(drawn)
    task.draft.summary |= {"samples": len(drawn), "steps": last.steps}


def _corpus_blocks(task: Task) -> Iterator[pl.DataFrame]:
    """The samples of every shard, block by block."""
    for shard in task.each("corpus"):
        yield from read_sample_blocks(task.file("corpus", "samples.parquet", shard))


@asset_maker(
    group="teacher",
    inputs=("corpus", "target_adapter"),
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
    samples = read_sample_blocks(task.file("corpus", "samples.parquet", task.shard_name))
    drawn = draw_rows(samples, count, seed)
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
        "tokens_per_batch": found.tokens_per_batch,
        "teacher": teacher_key(task),
    }


@asset_maker(
    group="teacher",
    inputs=("corpus", "target_adapter", "gradient_projections", "behavior_queries"),
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
    queries = load_table(task.file("behavior_queries", "queries.parquet"))
    queries = queries.unique("sample_id", keep="first", maintain_order=True)
    found = _features(task, queries)
    usable = queries.filter(~pl.col("sample_id").is_in(list(found.unusable)))
    shards = _of_one_teacher(task)
    candidates, features = _shared_out(task, shards)
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
    # The encoder's own measure is renewed with it, even where another name gives equal features.
    task.out("teacher.txt").write_text(teacher_key(task))
    _labelled(task, frozen).write_parquet(task.out("labelled.parquet"))
    task.draft.rows = len(frozen.candidates)
    task.draft.summary |= {
        **frozen.counts(),
        "unusable_queries": len(found.unusable),
        "shards": len(shards),
        "target_model": task.settings.target_model.path,
        "teacher": teacher_key(task),
    }


def _of_one_teacher(task: Task) -> list[str]:
    """The shards with gradients of today's teacher: one that failed keeps those it had before, and
    features of two teachers cannot be compared."""
    asset, today = "gradient_projections", teacher_key(task)
    shards = [s for s in task.each(asset) if task.input(asset, s).summary["teacher"] == today]
    if not shards:
        raise DataError(
            "No shard has gradients of the target model as it is set now: all have failed.",
            where="gradient_projections",
            fix="mend what the failed shards' errors say",
        )
    return shards


def _shared_out(task: Task, shards: Sequence[str]) -> tuple[pl.DataFrame, np.ndarray]:
    """The shards' candidates with their features; of too many, an equal share of each shard's."""

    def of(name: str) -> list[Path]:
        return [task.file("gradient_projections", name, shard) for shard in shards]

    settings, tables = task.settings.distillation, of("candidates.parquet")
    ids = [load_table(each, columns=["sample_id"])["sample_id"].to_list() for each in tables]
    counts = share_out(ids, settings.candidates, settings.seed)
    candidates = pl.concat(
        load_table(each).head(count) for each, count in zip(tables, counts, strict=True)
    )
    features = [
        np.load(each, mmap_mode="r")[:count]
        for each, count in zip(of("features.npy"), counts, strict=True)
    ]
    return candidates, np.concatenate(features)


def _labelled(task: Task, frozen: DistillationSet) -> pl.DataFrame:
    """A draw of labelled samples that no encoder is trained on, without holding all at once."""
    trained_on = frozen.candidates.filter(pl.col("split") == "train")["sample_id"].implode()
    is_free = pl.col("label").is_not_null() & ~pl.col("sample_id").is_in(trained_on)
    labelled = (block.filter(is_free) for block in _corpus_blocks(task))
    return draw_rows(labelled, _LABELLED, seed=0).select(_CANDIDATE_COLUMNS)


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


def open_engine(task: Task) -> "GradientFeatures":
    """The teacher, loaded; it stays loaded for the process."""
    workspace = task.workspace
    models = workspace.data / "models"
    return teacher.loading.open_teacher(workspace.target_files, models, _settings(task))


def teacher_key(task: Task) -> str:
    """Name of everything that shapes a gradient feature."""
    model = task.facts.sources["target_model"]
    if task.settings.target_model.adapter.source == "warmup":
        model = fingerprint.of_text(model, task.input("target_adapter").fingerprint)
    return teacher_settings(task.settings, None).key(model)


def _features(task: Task, frame: pl.DataFrame) -> Collected:
    rows = task.workspace.rows("gradients", teacher_key(task))
    open_once = functools.partial(open_engine, task)
    dimensions = task.settings.target_model.sketch.dimensions
    return collect(open_once, to_samples(frame), rows, dimensions, task.say)


def _write_unusable(found: Collected, drawn: pl.DataFrame) -> pl.DataFrame:
    reasons = pl.DataFrame(
        {"sample_id": list(found.unusable), "reason": list(found.unusable.values())},
        schema={"sample_id": pl.String, "reason": pl.String},
    )
    return reasons.join(drawn.select("sample_id", "file", "row"), on="sample_id", how="left")
