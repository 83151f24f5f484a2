"""What toxicity and attribution share: a teacher, students and baselines, with what they cost."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bench import measure
from bench.fidelity import WORDS, encoder_folder
from bench.kept import Kept, KeptVectors, Spent
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import fingerprint
from influcoder_lib.evaluation.baselines import (
    bm25,
    chance,
    encoder,
    gradient,
    length,
    less,
    logra,
    surface,
)
from influcoder_lib.evaluation.baselines.base import Baseline
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import distill_kernel
from influcoder_lib.student.training import TrainingSet
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.loading import close_teacher

UNTRAINED = "untrained encoder"
KINDS = ("centred", "raw")
_WINDOW = 256
# Of both sides, so much chooses between the student and the untrained encoder.
_VALIDATION = 1 / 6


@dataclass(frozen=True)
class Predictor:
    """A baseline or a student, and what one of its candidates cost, where that is on record."""

    baseline: Baseline
    spent: Sequence[Spent] = ()


Predictors = Mapping[str, Predictor]


def samples(frame: pl.DataFrame) -> list[Sample]:
    """Rows with prompt and response as samples, by what they say."""
    return [
        Sample(fingerprint.sample_id(prompt, response), prompt, response)
        for prompt, response in frame.select("prompt", "response").iter_rows()
    ]


def predictors(kept: Kept, queries: list[Sample], candidates: list[Sample]) -> Predictors:
    """What costs little, and students distilled from these samples."""
    asked, offered = (gradient.features_of(kept.gradients, side) for side in (queries, candidates))
    close_teacher()
    cuts = [_cut(side) for side in (queries, candidates)]
    mean = _mean(kept, candidates)
    base = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    words_of = {name: words(base) for name, words in WORDS.items()}
    students: dict[str, Predictor] = {}
    for kind in KINDS:
        both = [
            rankings.centre(each, mean) if kind == "centred" else each.astype(np.float32)
            for each in (asked, offered)
        ]
        train, validation = (
            TrainingSet(queries[q], candidates[c], both[0][q], both[1][c])
            for q, c in (
                (slice(cuts[0], None), slice(cuts[1], None)),
                (slice(None, cuts[0]), slice(None, cuts[1])),
            )
        )
        if kind == "centred":
            known = train.queries, train.candidates, train.influence
        say = functools.partial(lambda kind, log: measure.say(f"{kind}: {log}"), kind)
        for words, seen in words_of.items():
            done = distill_kernel(seen, train, validation, EncoderSettings().dimension, say)
            for name, share in (("", 0.0), (", half resemblance", 0.5)):
                students[f"{words}, {kind}{name}"] = _encoder(kept.vectors(done.encoder), share)
    return {
        "random": Predictor(chance.Chance(0)),
        "response length": Predictor(length.ResponseLength()),
        "length map": Predictor(length.fit(*known)),
        "surface map": Predictor(surface.fit(*known)),
        "BM25": Predictor(bm25.Bm25()),
        UNTRAINED: _encoder(kept.vectors(base)),
        **students,
    }


def of_target_model(kept: Kept, candidates: list[Sample]) -> Predictors:
    """What needs the target model for every sample: Grad-Sim, which is the teacher; LESS, warmed up
    on a draw of these candidates; LoGra; and Rep-Sim."""
    gradients, projected, mean = kept.gradients, kept.projected, _mean(kept, candidates)
    stages = kept.stages(candidates)
    return {
        "teacher, centred": Predictor(gradient.GradientCosine(gradients, mean), [gradients.spent]),
        "teacher, raw": Predictor(gradient.GradientCosine(gradients), [gradients.spent]),
        "LESS": Predictor(less.Less(stages), [each.candidates.spent for each in stages]),
        "LoGra": Predictor(logra.Logra(projected, projected.dimensions), [projected.spent]),
        "Rep-Sim": _encoder(kept.representations()),
    }


def _encoder(vectors: KeptVectors, resemblance: float = 0.0) -> Predictor:
    return Predictor(encoder.EncoderCosine(vectors, resemblance=resemblance), [vectors.spent])


def _cut(side: list[Sample]) -> int:
    return round(_VALIDATION * len(side))


def _mean(kept: Kept, candidates: list[Sample]) -> np.ndarray:
    return rankings.centring_mean(kept.gradients(candidates)[_cut(candidates) :])


def scores(
    predictors: Predictors, queries: list[Sample], rows: list[Sample]
) -> dict[str, tuple[np.ndarray, float]]:
    """Scores (Q, N) by name, and what a sample cost in milliseconds: a sample's own part as it was
    when that was computed, without opening a model or warming it up; else of all the scoring."""
    found = {}
    for name, each in predictors.items():
        begin = time.perf_counter()
        own = each.baseline.scores(queries, rows)
        taken = 1000 * (time.perf_counter() - begin) / (len(queries) + len(rows))
        cost = sum(spent.per_sample() for spent in each.spent) if each.spent else taken
        measure.say(f"{name}: {cost:.3g} ms a sample")
        found[name] = own, cost
    return found
