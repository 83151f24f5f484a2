"""Fidelity of the product's students against the teacher gradients that they learnt from.

`--train` and `--test` are as in bench.fidelity. A share of the train split is drawn, of queries and
candidates alike, so that there are as many gradients in all as a row says; the kernel and the
static student are fitted to them and judged on held-out queries and candidates. Mean and spread are
over draws, one a seed; the last rows take all there is, and have none.

The default takes about five minutes on two cores.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import measure
from bench.fidelity import KINDS, WORDS, Data, encoder_folder, load
from bench.measure import Figure
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import metrics, target_model
from influcoder_lib.evaluation.baselines import encoder, length
from influcoder_lib.metrics import Fidelity
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from influcoder_lib.student.training import TrainingSet

_WINDOW = 256


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    shared = Path("../shared/data/fidelity")
    parser.add_argument("--train", type=Path, default=shared)
    parser.add_argument("--test", type=Path, default=shared)
    parser.add_argument("--gradients", type=int, nargs="+", default=[75, 150, 300, 600, 1200])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    target_model.quiet()
    figures = [each for kind in KINDS for each in table(given, kind)]
    measure.show(figures, given.json)


def table(given: argparse.Namespace, kind: str) -> Iterator[Figure]:
    """The figures of one kind of truth, least gradients first."""
    data = load(given.train, given.test, kind)
    whole = len(data.train.queries) + len(data.train.candidates)
    title = f"scaling, {kind} truth"
    base = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    words_of = {name: words(base) for name, words in WORDS.items()}
    for gradients in [*(each for each in given.gradients if each < whole), whole]:
        seeds = range(given.seeds if gradients < whole else 1)
        parts = [part(data.train, gradients / whole, seed) for seed in seeds]
        measure.say(f"{title}: {gradients} gradients")
        yield from _figures(title, f"{gradients} gradients, length map", map_runs(data, parts))
        for name, words in words_of.items():
            runs = student_runs(data, parts, words)
            yield from _figures(title, f"{gradients} gradients, {name}", runs)


def part(train: TrainingSet, share: float, seed: int) -> TrainingSet:
    """A seeded share of both sides, at least one query and two candidates."""
    draw = np.random.default_rng(seed)
    queries, candidates = (
        np.sort(draw.permutation(count)[: max(least, round(share * count))])
        for count, least in ((len(train.queries), 1), (len(train.candidates), 2))
    )
    return TrainingSet(
        [train.queries[row] for row in queries],
        [train.candidates[row] for row in candidates],
        train.query_features[queries],
        train.candidate_features[candidates],
    )


def map_runs(data: Data, parts: list[TrainingSet]) -> list[tuple[Fidelity, float]]:
    """Fidelity of the length map of each part, and the seconds of fitting it."""
    found = []
    for own in parts:
        begin = time.perf_counter()
        fitted = length.fit(own.queries, own.candidates, own.influence)
        taken = time.perf_counter() - begin
        scores = fitted.scores(data.test.queries, data.test.candidates)
        found.append((data.test.fidelity(scores), taken))
    return found


def student_runs(
    data: Data, parts: list[TrainingSet], words: InfluenceEncoder
) -> list[tuple[Fidelity, float]]:
    """Fidelity of the student of each part, and the seconds of fitting it."""
    found = []
    for own in parts:
        begin = time.perf_counter()
        student, _ = fit(words, own, EncoderSettings().dimension)
        taken = time.perf_counter() - begin
        scores = encoder.EncoderCosine(student).scores(data.test.queries, data.test.candidates)
        found.append((data.test.fidelity(scores), taken))
    return found


def _figures(title: str, row: str, runs: list[tuple[Fidelity, float]]) -> Iterator[Figure]:
    found = [dataclasses.asdict(fidelity) for fidelity, _ in runs]
    for metric in found[0]:
        mean, spread = metrics.mean_and_spread([each[metric] for each in found])
        label = metric.replace("_", " ")
        yield Figure(title, row, label, mean, spread if len(found) > 1 else None, "")
    yield Figure(title, row, "training", statistics.median(taken for _, taken in runs), None, "s")


if __name__ == "__main__":
    main()
