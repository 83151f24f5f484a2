"""How well students and cheaper predictors follow the teacher, on queries and candidates held out.

`--train` is a folder as ../shared/data/fidelity: queries.parquet (prompt, target) and
candidates.parquet (prompt, response), both with a `split`, query_features.npy and
candidate_features.npy. Its rows of split `train` are trained on; a seeded sixth of them chooses the
best epoch. `--test` is one with the two parquet files, influence.npy and influence_centred.npy;
rows of split `dev` are judged, or all where there is no such column. Each truth has students of its
own.

Every run is kept in `--runs`, by all that shapes it, and not repeated. Kernel and static students
have nothing random, so they are trained once. The default takes two hours on two cores, `--only
kernel static` two minutes.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench import measure
from bench.measure import Figure
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import (
    budget,
    fingerprint,
    hardware,
    metrics,
    models,
    schedule,
    student,
    target_model,
)
from influcoder_lib.evaluation.baselines import bm25, chance, encoder, length, surface
from influcoder_lib.evaluation.held_out import Block
from influcoder_lib.samples import Sample
from influcoder_lib.student.distillation import distill
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import distill_kernel
from influcoder_lib.student.recipes import RECIPES, Recipe
from influcoder_lib.student.static import static_of
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet
from influcoder_lib.teacher import rankings

KINDS = ("centred", "raw")
# Of the train split, so much chooses the best epoch.
_VALIDATION = 1 / 6
_WINDOW = 256

Say = Callable[[EpochLog], None]
Words = Callable[[InfluenceEncoder], InfluenceEncoder]
Train = Callable[[InfluenceEncoder, "Data", int, Say], Distilled]

# What the closed-form students see of a text's words: the encoder's transformer, or its table.
WORDS: dict[str, Words] = {"kernel": InfluenceEncoder.copy, "static": static_of}


@dataclasses.dataclass(frozen=True)
class Student:
    """A way of training, what shapes it beside the data, and whether a seed does."""

    train: Train
    facts: dict[str, Any]
    seeded: bool


def _descent(recipe: Recipe) -> Student:
    def train(base: InfluenceEncoder, data: "Data", seed: int, say: Say) -> Distilled:
        return distill(base, data.train, data.validation, recipe, seed, say)

    return Student(train, dataclasses.asdict(recipe), seeded=True)


def _regression(dimension: int, words: Words) -> Student:
    def train(base: InfluenceEncoder, data: "Data", _: int, say: Say) -> Distilled:
        return distill_kernel(words(base), data.train, data.validation, dimension, say)

    return Student(train, {"dimension": dimension}, seeded=False)


def students(epochs: int | None) -> dict[str, Student]:
    """By name; `epochs` overrules the recipes'."""
    reference, lean = (
        dataclasses.replace(each, epochs=epochs or each.epochs)
        for each in (RECIPES["reference"], RECIPES["lean"])
    )
    dimension = EncoderSettings().dimension
    return {
        "reference recipe": _descent(reference),
        "lean recipe": _descent(lean),
        **{name: _regression(dimension, words) for name, words in WORDS.items()},
    }


@dataclasses.dataclass(frozen=True)
class Data:
    """What one truth's students learn from, and what all are judged on."""

    train: TrainingSet
    validation: TrainingSet
    test: Block


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    shared = Path("../shared/data/fidelity")
    parser.add_argument("--train", type=Path, default=shared)
    parser.add_argument("--test", type=Path, default=shared)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--only", nargs="*", choices=students(None), default=list(students(None)))
    parser.add_argument("--epochs", type=int, help="default: each recipe's own")
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="where runs are kept")
    given = parser.parse_args()
    target_model.quiet()
    figures = [each for kind in given.kinds for each in table(given, kind)]
    measure.show(figures, given.json)


def table(given: argparse.Namespace, kind: str) -> Iterator[Figure]:
    """The figures of one truth, cheapest first."""
    data = load(given.train, given.test, kind)
    title = f"fidelity, {kind} truth"
    base = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    untrained = encoder.EncoderCosine(base)
    train = data.train.queries, data.train.candidates, data.train.influence
    for one in (
        chance.Chance(0),
        length.ResponseLength(),
        length.fit(*train),
        surface.fit(*train),
        bm25.Bm25(),
        untrained,
    ):
        begin = time.perf_counter()
        scores = one.scores(data.test.queries, data.test.candidates)
        yield from _figures(title, one.name, data.test, [scores])
        yield _cost(title, one.name, data.test, [time.perf_counter() - begin])
    for name in given.only:
        way = students(given.epochs)[name]
        seeds = range(given.seeds if way.seeded else 1)
        runs = [student_run(given.runs, data, base, name, way, seed) for seed in seeds]
        yield from _figures(title, name, data.test, [scores for scores, _ in runs])
        yield _cost(title, name, data.test, [taken for _, taken in runs])


def student_run(
    folder: Path, data: Data, base: InfluenceEncoder, name: str, one: Student, seed: int
) -> tuple[np.ndarray, float]:
    """Scores (Q, N) of one trained student on the test block, and the seconds of scoring it."""
    facts = {
        "name": name,
        "base": base.fingerprint,
        "code": _code(),
        **one.facts,
        "seed": seed,
        "truth": fingerprint.of_array(data.train.influence),
        "test": fingerprint.of_array(data.test.influence),
    }
    kept = folder / f"{fingerprint.of_json(facts)}.npz"
    if not kept.exists():
        done = one.train(base, data, seed, lambda epoch: measure.say(_said(name, seed, epoch)))
        begin = time.perf_counter()
        scores = encoder.EncoderCosine(done.encoder).scores(data.test.queries, data.test.candidates)
        taken = time.perf_counter() - begin
        folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npz")
        np.savez(part, scores=scores, seconds=taken, facts=json.dumps(facts))
        part.rename(kept)
        measure.say(f"{name}, seed {seed}: {data.test.fidelity(scores)}")
    with np.load(kept, allow_pickle=False) as run:
        return run["scores"], float(run["seconds"])


def _code() -> str:
    """Fingerprint of the code that trains, encodes and chooses an epoch."""
    return measure.code(student, encoder, budget, hardware, metrics, schedule)


def load(train: Path, test: Path, kind: str) -> Data:
    """Train and validation sets of one kind of influence, and the block that is judged."""
    queries, candidates = _side(train, "queries", "target"), _side(train, "candidates", "response")
    features = {name: np.load(train / f"{name}_features.npy") for name in ("query", "candidate")}
    own = {
        "query": _rows(train, "queries", "train"),
        "candidate": _rows(train, "candidates", "train"),
    }
    if kind == "centred":
        mean = rankings.centring_mean(features["candidate"][own["candidate"]])
        features = {name: rankings.centre(each, mean) for name, each in features.items()}
    draw = np.random.default_rng(0)
    cut = {}
    for name, rows in own.items():
        mixed = draw.permutation(rows)
        at = round(_VALIDATION * len(mixed))
        cut[name] = {"train": np.sort(mixed[at:]), "validation": np.sort(mixed[:at])}
    sets = [
        TrainingSet(
            [queries[row] for row in cut["query"][split]],
            [candidates[row] for row in cut["candidate"][split]],
            features["query"][cut["query"][split]].astype(np.float32),
            features["candidate"][cut["candidate"][split]].astype(np.float32),
        )
        for split in ("train", "validation")
    ]
    return Data(sets[0], sets[1], _test_block(test, kind))


def _test_block(folder: Path, kind: str) -> Block:
    queries, candidates = (
        _side(folder, "queries", "target"),
        _side(folder, "candidates", "response"),
    )
    rows, columns = _rows(folder, "queries", "dev"), _rows(folder, "candidates", "dev")
    name = "influence_centred.npy" if kind == "centred" else "influence.npy"
    influence = np.load(folder / name)[np.ix_(rows, columns)]
    return Block(
        [queries[row] for row in rows],
        [candidates[row] for row in columns],
        np.ascontiguousarray(influence, dtype=np.float32),
    )


def _side(folder: Path, name: str, response: str) -> list[Sample]:
    frame = pl.read_parquet(folder / f"{name}.parquet")
    return [
        Sample(str(row["id"]), row["prompt"], row[response]) for row in frame.iter_rows(named=True)
    ]


def _rows(folder: Path, name: str, split: str) -> np.ndarray:
    frame = pl.read_parquet(folder / f"{name}.parquet")
    if "split" not in frame.columns:
        return np.arange(len(frame))
    return np.flatnonzero((frame["split"] == split).to_numpy())


def encoder_folder() -> Path:
    """The packaged sentence encoder."""
    return models.check_encoder(models.locate("all-minilm-l6-v2", Path()))


def _figures(title: str, name: str, test: Block, scores: Sequence[np.ndarray]) -> Iterator[Figure]:
    found = [dataclasses.asdict(test.fidelity(each)) for each in scores]
    for metric in found[0]:
        mean, spread = metrics.mean_and_spread([each[metric] for each in found])
        label = metric.replace("_", " ")
        yield Figure(title, name, label, mean, spread if len(found) > 1 else None, "")


def _cost(title: str, name: str, test: Block, seconds: Sequence[float]) -> Figure:
    samples = len(test.queries) + len(test.candidates)
    own = [1000 * each / samples for each in seconds]
    return measure.figure(title, name, "cost", own, "ms/sample")


def _said(name: str, seed: int, epoch: EpochLog) -> str:
    loss = "untrained" if epoch.loss is None else f"loss {epoch.loss:.3f}"
    return (
        f"{name}, seed {seed}, epoch {epoch.epoch}: {loss}, validation "
        f"{epoch.validation_per_query:.3f} {epoch.validation_aggregated:.3f}, {epoch.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
