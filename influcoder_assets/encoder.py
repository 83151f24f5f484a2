"""The student's assets: the trained challenger, a version of the registry each, and its comparison
with what costs less."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from influcoder_assets.config import BehaviorSettings
from influcoder_assets.maker import Task, asset_maker
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import evaluation, fingerprint, models, report, student, teacher
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.evaluation import comparison
from influcoder_lib.rows import FORMAT
from influcoder_lib.samples import to_samples
from influcoder_lib.student.recipes import RECIPES, Recipe
from influcoder_lib.tables import load_table
from influcoder_lib.teacher.distillation_set import DistillationSet

if TYPE_CHECKING:
    from influcoder_lib.evaluation.held_out import Block, Contenders
    from influcoder_lib.report.model import Table
    from influcoder_lib.student.encoder import InfluenceEncoder
    from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet

_EMBEDDING_CODE = "2"
# What of a behavior's settings shapes the comparison.
_COMPARED: dict[str, Any] = {
    "positive_label": True,
    "hard_negative_label": True,
    "resemblance": True,
    "rule": {"statistic"},
}


@asset_maker(
    group="encoder",
    inputs=("distillation_set", "teacher_rankings"),
    sources=("base_encoder",),
    settings=lambda s: s.encoder.model_dump(mode="json", exclude={"path", "registered_model"}),
    kinds=("pytorch", "mlflow"),
    code_version="4",
)
def influence_encoder(task: Task) -> None:
    """The latest trained encoder, logged and registered: a challenger until it passes.

    One is trained a seed; the one best on the validation split is the challenger."""
    settings = task.settings.encoder
    teacher.loading.close_teacher()
    train, validation = (_training_set(task, split) for split in ("train", "validation"))
    base = _open_base(task)
    logs: dict[int, list[EpochLog]] = {}
    best: dict[int, EpochLog] = {}
    fingerprints: dict[str, str] = {}
    for seed in training_seeds(settings):
        trained = _trained(task, base, train, validation, seed)
        trained.encoder.save(task.out(f"seeds/{seed}"))
        logs[seed], best[seed] = trained.log, trained.log[trained.best_epoch]
        fingerprints[str(seed)] = trained.encoder.fingerprint
    chosen = max(best, key=lambda seed: best[seed].validation)
    shutil.copytree(task.out(f"seeds/{chosen}"), task.out("encoder"))
    _write_training(task, logs, chosen)
    task.draft.rows = len(logs)
    task.draft.summary |= {
        "chosen_seed": chosen,
        "best_epoch": best[chosen].epoch,
        "validation": best[chosen].validation,
        "window": settings.window,
        "encoders": fingerprints,
        "encoder": fingerprints[str(chosen)],
        "untrained": base.fingerprint,
    }
    _register(task, logs)


@asset_maker(
    group="encoder",
    inputs=(
        "influence_encoder",
        "distillation_set",
        "teacher_rankings",
        "behavior_queries",
    ),
    sources=("base_encoder",),
    code_version="5",
    settings=lambda s: {
        "behaviors": {
            name: each.model_dump(mode="json", include=_COMPARED)
            for name, each in s.behaviors.items()
        }
    },
    kinds=("json", "mlflow"),
)
def encoder_comparison(task: Task) -> None:
    """Fidelity and, on labelled samples, AUPRC of the encoder against length, BM25, the untrained
    encoder and the teacher itself; the first line says who wins."""
    contenders = evaluation.held_out.Contenders(_block(task, "train"), *_stored_encoders(task))
    test = _block(task, "test")
    tables = [test.table(contenders.predictors(test.queries, test.candidates))]
    for name, behavior in task.settings.behaviors.items():
        if behavior.positive_label is not None:
            tables += _retrieval(task, contenders, name, behavior)
    headline = comparison.headline(tables)
    stored = {"headline": headline, "tables": [dataclasses.asdict(table) for table in tables]}
    task.out("comparison.json").write_text(json.dumps(stored, indent=1))
    task.draft.rows = len(tables)
    task.draft.summary |= {"headline": headline}
    run_id = str(task.input("influence_encoder").summary["mlflow_run"])
    registry, figures = task.workspace.registry, comparison.figures(tables)
    if not registry.add(run_id, figures, task.draft.folder, "comparison"):
        task.say(f"the encoder's MLflow run {run_id} was deleted, so the comparison is only here")


def _retrieval(
    task: Task, contenders: "Contenders", name: str, behavior: BehaviorSettings
) -> "list[Table]":
    """AUPRC on labelled corpus samples and on candidates, none of them trained on."""
    frozen = DistillationSet.load(task.folder("distillation_set"))
    labelled = load_table(task.file("distillation_set", "labelled.parquet"))
    queries = load_table(task.file("behavior_queries", "queries.parquet"))
    queries = queries.filter(pl.col("behavior") == name)
    held_back = frozen.candidates.filter(pl.col("split") != "train")
    beside = evaluation.held_out.teacher_predictors(
        frozen, queries["sample_id"].to_list(), held_back["sample_id"].to_list()
    )
    tables = []
    for title, frame, extra in (
        (f"Finding {name}: labelled samples of the corpus", labelled, []),
        (f"Finding {name}: held-out candidates, the teacher beside", held_back, beside),
    ):
        if (frame["label"] == behavior.positive_label).sum() == 0:
            task.say(
                f"{title}: no sample drawn with the distillation set is labelled "
                f"{behavior.positive_label!r}; `influcoder redistill` draws again"
            )
            continue
        predictors = contenders.predictors(
            to_samples(queries), to_samples(frame), behavior.resemblance
        )
        table = comparison.retrieval_table(
            title,
            [*predictors, *extra],
            frame["label"].to_list(),
            str(behavior.positive_label),
            behavior.hard_negative_label,
            behavior.rule.statistic,
        )
        tables.append(table)
    return tables


def _block(task: Task, split: str) -> "Block":
    frozen = DistillationSet.load(task.folder("distillation_set"))
    influence = np.load(task.file("teacher_rankings", "influence.npy"))
    return evaluation.held_out.Block.of(frozen, influence, split)


def _training_set(task: Task, split: str) -> "TrainingSet":
    frozen = DistillationSet.load(task.folder("distillation_set"))
    features = frozen.unit_features(task.settings.distillation.influence)
    own = (each[rows] for each, rows in zip(features, frozen.rows(split), strict=True))
    return student.training.TrainingSet(*frozen.samples(split), *own)


def training_seeds(settings: EncoderSettings) -> tuple[int, ...]:
    """The seeds that an encoder is trained for: one of a regression, as nothing is random."""
    return settings.seeds if settings.architecture == "transformer" else settings.seeds[:1]


def _trained(
    task: Task,
    base: "InfluenceEncoder",
    train: "TrainingSet",
    validation: "TrainingSet",
    seed: int,
) -> "Distilled":
    settings = task.settings.encoder
    if settings.architecture == "transformer":
        say = partial(_say_epoch, task, seed, settings.epochs)
        recipe = _recipe(settings)
        return student.distillation.distill(base, train, validation, recipe, seed, say)
    words = student.static.static_of(base) if settings.architecture == "static" else base
    say = partial(_say_epoch, task, seed, 1)
    return student.kernel.distill_kernel(words, train, validation, settings.dimension, say)


def _recipe(settings: EncoderSettings) -> Recipe:
    names = {each.name for each in dataclasses.fields(Recipe)}
    own = settings.model_dump(include=names, exclude_none=True)
    return dataclasses.replace(RECIPES[settings.recipe], **own)


def _open_base(task: Task) -> "InfluenceEncoder":
    folder = models.check_encoder(task.workspace.encoder_files)
    return student.encoder.InfluenceEncoder.load(folder, task.settings.encoder.window)


def _stored_encoders(task: Task) -> tuple[StoredVectors, Sequence[StoredVectors]]:
    """The untrained encoder and the trained ones, a seed each."""
    summary = task.input("influence_encoder").summary
    window = int(summary["window"])
    base = models.check_encoder(task.workspace.encoder_files)
    return stored_vectors(task, summary["untrained"], lambda: base, window), [
        stored_vectors(
            task, encoder, partial(task.folder, "influence_encoder", f"seeds/{seed}"), window
        )
        for seed, encoder in summary["encoders"].items()
    ]


def stored_vectors(
    task: Task, encoder: str, find: Callable[[], Path], window: int
) -> StoredVectors:
    """An encoder with this fingerprint, its vectors kept in a row store. Its folder is looked for,
    and its bytes verified, only if something has to be embedded."""
    key = fingerprint.of_text(encoder, _EMBEDDING_CODE, FORMAT)
    rows = task.workspace.rows("embeddings", key)
    return StoredVectors(cache(lambda: _load(find(), window)), rows, task.say)


@lru_cache(maxsize=2)
def _load(folder: Path, window: int) -> "InfluenceEncoder":
    return student.encoder.InfluenceEncoder.load(folder, window)


def _say_epoch(task: Task, seed: int, epochs: int, epoch: "EpochLog") -> None:
    seeds = training_seeds(task.settings.encoder)
    loss = "untrained" if epoch.loss is None else f"loss {epoch.loss:.3f}"
    left = epochs - epoch.epoch + epochs * (len(seeds) - 1 - seeds.index(seed))
    task.say(
        f"seed {seed}, epoch {epoch.epoch} of {epochs}: {loss}, validation "
        f"{epoch.validation_per_query:.3f} per query, {epoch.validation_aggregated:.3f} aggregated"
        f", {left * epoch.seconds:.0f} s left"
    )


def _write_training(task: Task, logs: "dict[int, list[EpochLog]]", chosen: int) -> None:
    epochs = {
        seed: [
            {k: v for k, v in dataclasses.asdict(each).items() if k != "seconds"} for each in log
        ]
        for seed, log in logs.items()
    }
    stored = {"chosen": chosen, "epochs": epochs}
    task.out("training.json").write_text(json.dumps(stored, indent=1))
    task.out("training.png").write_bytes(report.training.training_picture(logs))


def _register(task: Task, logs: "dict[int, list[EpochLog]]") -> None:
    """Log one run with every seed's curves, and register the chosen encoder as a version; one that
    is registered already is left as it is."""
    registry = task.workspace.registry
    encoder = task.draft.summary["encoder"]
    curves = {
        f"seed_{seed}/{name}": [
            (each.epoch, float(getattr(each, name)))
            for each in log
            if getattr(each, name) is not None
        ]
        for seed, log in logs.items()
        for name in ("loss", "validation_per_query", "validation_aggregated")
    }
    inputs = {
        name: task.input(name).fingerprint for name in ("distillation_set", "teacher_rankings")
    }
    settings = task.settings
    params = {
        **settings.encoder.model_dump(mode="json"),
        "target_model": settings.target_model.path,
        "influence": settings.distillation.influence,
        **inputs,
        "base_encoder": task.facts.sources["base_encoder"],
    }
    tags = {"fingerprint": encoder, **inputs}
    # After a kill or a loss the same encoder is trained again; it stays the version that it was.
    known = registry.registered(tags)
    if known is None:
        run_id = registry.log_run(
            f"influence_encoder {encoder[:8]}",
            params,
            curves,
            {"dagster_run": task.run_id, "encoder": encoder},
            {"encoder": task.out("encoder")},
            [task.out("training.json"), task.out("training.png")],
        )
        known = registry.register(run_id, "encoder", tags), run_id
    task.draft.summary |= dict(zip(("version", "mlflow_run"), known, strict=True))
