"""What toxicity and attribution share: a teacher, students, baselines, and what is kept of them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bench import measure
from bench.fidelity import encoder_folder
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import fingerprint, models
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.evaluation.baselines import bm25, chance, encoder, gradient, length, surface
from influcoder_lib.evaluation.baselines.base import Baseline
from influcoder_lib.evaluation.baselines.representation import Representations
from influcoder_lib.rows import FORMAT, open_rows
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import distill_kernel
from influcoder_lib.student.training import TrainingSet
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.collection import collect
from influcoder_lib.teacher.engine import TeacherSettings, close_teacher, open_teacher

UNTRAINED = "untrained encoder"
KINDS = ("centred", "raw")
_WINDOW = 256
# Of both sides, so much chooses between the student and the untrained encoder.
_VALIDATION = 1 / 6
_TEACHER = TeacherSettings("bfloat16", 512, 768, 16, 0, None, 8192, 0)


@dataclass(frozen=True)
class Kept:
    """The folder that gradients and vectors are kept in, so that a killed run goes on."""

    folder: Path

    def gradients(self, samples: Sequence[Sample]) -> np.ndarray:
        """Unit gradient features (n, D) float16."""
        files = models.locate("smollm2-135m-instruct", Path())
        rows = open_rows(self.folder / "gradients" / _TEACHER.key(files.fingerprint()))
        teacher = functools.partial(open_teacher, files, self.folder / "models", _TEACHER)
        found = collect(teacher, samples, rows, _TEACHER.sketch_dimensions, measure.say)
        return found.features

    def representations(self) -> StoredVectors:
        """Rep-Sim's vectors, of the same target model."""
        files = models.locate("smollm2-135m-instruct", Path())
        rows = open_rows(self.folder / "representations" / _TEACHER.key(files.fingerprint()))

        def opened() -> Representations:
            close_teacher()
            target = models.load_target(models.unpack(files, self.folder / "models"), "bfloat16")
            return Representations(target, _TEACHER.window, 4 * _TEACHER.tokens_per_batch)

        return StoredVectors(functools.cache(opened), rows, measure.say)

    def vectors(self, one: InfluenceEncoder) -> StoredVectors:
        """The encoder with its vectors stored."""
        key = fingerprint.of_text(one.fingerprint, FORMAT)
        return StoredVectors(lambda: one, open_rows(self.folder / "vectors" / key), measure.say)


def samples(frame: pl.DataFrame) -> list[Sample]:
    """Rows with prompt and response as samples, by what they say."""
    return [
        Sample(fingerprint.sample_id(prompt, response), prompt, response)
        for prompt, response in frame.select("prompt", "response").iter_rows()
    ]


def predictors(
    kept: Kept, queries: list[Sample], candidates: list[Sample]
) -> tuple[dict[str, Baseline], dict[str, Baseline]]:
    """What costs little or is distilled from these samples; and what needs the target model for
    every sample: Grad-Sim, which is the teacher, and Rep-Sim."""
    asked, offered = kept.gradients(queries), kept.gradients(candidates)
    close_teacher()
    cuts = [round(_VALIDATION * len(side)) for side in (queries, candidates)]
    mean = rankings.centring_mean(offered[cuts[1] :])
    base = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    students: dict[str, Baseline] = {}
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
        done = distill_kernel(base, train, validation, EncoderSettings().dimension, say)
        vectors = kept.vectors(done.encoder)
        students[f"kernel, {kind}"] = encoder.EncoderCosine(vectors)
        students[f"kernel, {kind}, half resemblance"] = encoder.EncoderCosine(
            vectors, resemblance=0.5
        )
    cheap: dict[str, Baseline] = {
        "random": chance.Chance(0),
        "response length": length.ResponseLength(),
        "length map": length.fit(*known),
        "surface map": surface.fit(*known),
        "BM25": bm25.Bm25(),
        UNTRAINED: encoder.EncoderCosine(kept.vectors(base)),
    }
    teacher: dict[str, Baseline] = {
        "teacher, centred": gradient.GradientCosine(kept.gradients, mean),
        "teacher, raw": gradient.GradientCosine(kept.gradients),
        "Rep-Sim": encoder.EncoderCosine(kept.representations(), "Rep-Sim"),
    }
    return cheap | students, teacher


def scores(
    predictors: Mapping[str, Baseline], queries: list[Sample], rows: list[Sample]
) -> dict[str, np.ndarray]:
    """Scores (Q, N) by name."""
    return {name: each.scores(queries, rows) for name, each in predictors.items()}
