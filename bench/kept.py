"""What benches keep of costly things, so that a killed run goes on, and what they cost."""

import functools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from bench import measure
from influcoder_lib import fingerprint, hardware, models, target_model
from influcoder_lib.curation.embedding import Reads, StoredVectors
from influcoder_lib.evaluation.baselines import less, logra, representation
from influcoder_lib.rows import FORMAT, open_rows
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.teacher import warmup
from influcoder_lib.teacher.collection import collect, draw
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.loading import (
    close_teacher,
    open_teacher,
    warm_up_target,
)
from influcoder_lib.teacher.settings import TeacherSettings

_WINDOW = 512
_TOKENS = hardware.gradient_tokens(None, _WINDOW)
TEACHER = TeacherSettings("auto", _WINDOW, _TOKENS, 16, 0, None, 8192, 0)
# LESS warms up on so many of the candidates.
_WARMUP = 100
_WARMUP_SETTINGS = warmup.WarmupSettings()


@dataclass(frozen=True)
class Spent:
    """Seconds spent on samples, over all runs, in a JSON file."""

    path: Path

    def add(self, seconds: float, samples: int) -> None:
        """What some more samples took."""
        if samples:
            before = self._read()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps([before[0] + seconds, before[1] + samples]))

    def per_sample(self) -> float:
        """Milliseconds a sample; not a number if nothing was ever measured."""
        seconds, samples = self._read()
        return 1000 * seconds / samples if samples else float("nan")

    def _read(self) -> tuple[float, int]:
        return tuple(json.loads(self.path.read_text())) if self.path.exists() else (0.0, 0)


@dataclass(frozen=True)
class KeptFeatures:
    """Gradient features (n, D) float16 of samples, kept in a folder. Opening the model is no part
    of what they cost."""

    folder: Path
    opened: Callable[[], GradientFeatures]
    dimensions: int = TEACHER.sketch_dimensions

    @property
    def spent(self) -> Spent:
        return Spent(self.folder.with_name(f"{self.folder.name}.cost.json"))

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        rows = open_rows(self.folder)
        if not rows.known([each.sample_id for each in samples]).all():
            self.opened()
        begin = time.perf_counter()
        found = collect(self.opened, samples, rows, self.dimensions, measure.say)
        self.spent.add(time.perf_counter() - begin, found.computed)
        return found.features


class KeptVectors(StoredVectors):
    """An encoder's vectors, kept in a folder."""

    def __init__(self, folder: Path, open_encoder: Callable[[], Reads]) -> None:
        super().__init__(open_encoder, open_rows(folder), measure.say)
        self.spent = Spent(folder.with_name(f"{folder.name}.cost.json"))

    def embed(self, blocks: Iterable[Sequence[Sample]], total: int) -> None:
        """Embed those that have no vector yet."""
        self.open_encoder()
        begin, before = time.perf_counter(), self.computed
        super().embed(blocks, total)
        self.spent.add(time.perf_counter() - begin, self.computed - before)


@dataclass(frozen=True)
class Kept:
    """The folder that gradients, vectors and warm-ups are kept in."""

    folder: Path

    @functools.cached_property
    def files(self) -> models.ModelFiles:
        """The target model."""
        return models.locate("smollm2-135m-instruct", Path())

    @functools.cached_property
    def target(self) -> str:
        """Fingerprint of the target model."""
        return self.files.fingerprint()

    @property
    def gradients(self) -> KeptFeatures:
        """The teacher's unit gradient features."""
        return self.gradients_by(TEACHER)

    def gradients_by(self, settings: TeacherSettings) -> KeptFeatures:
        """Unit gradient features of another teacher of the same target model."""
        opened = functools.partial(open_teacher, self.files, self.folder / "models", settings)
        folder = self.folder / "gradients" / settings.key(self.target)
        return KeptFeatures(folder, opened, settings.sketch_dimensions)

    def stages(self, candidates: Sequence[Sample]) -> list[less.Stage]:
        """LESS's stages, warmed up on a draw of the candidates."""
        found = []
        for checkpoint in self._warmed(candidates):
            settings = replace(TEACHER, adapter=checkpoint.folder)
            key = settings.key(fingerprint.of_text(self.target, checkpoint.fingerprint()))
            adapted = fingerprint.of_text(key, measure.code(less))
            opened = functools.partial(open_teacher, self.files, self.folder / "models", settings)
            queries = KeptFeatures(self.folder / "less_queries" / key, opened)

            def adam(opened=opened, checkpoint=checkpoint) -> GradientFeatures:
                return less.adam_features(opened(), checkpoint)

            own = KeptFeatures(self.folder / "less_candidates" / adapted, adam)
            found.append(less.Stage(checkpoint.learning_rate, queries, own))
        return found

    def _warmed(self, candidates: Sequence[Sample]) -> list[warmup.Checkpoint]:
        drawn = [candidates[i] for i in draw([c.sample_id for c in candidates], _WARMUP, 0)]
        ids = [each.sample_id for each in drawn]
        key = fingerprint.of_text(self._made_by(warmup), str(_WARMUP_SETTINGS), *ids)
        folder = self.folder / "warm_up" / key
        if folder.exists():
            return warmup.checkpoints(folder)
        cache = self.folder / "models"
        return warm_up_target(
            self.files, cache, TEACHER, _WARMUP_SETTINGS, drawn, folder, measure.say
        )

    @property
    def projected(self) -> KeptFeatures:
        """LoGra's projected gradients, `width` numbers a layer, at the adapter's rank."""
        rank, seed = TEACHER.rank, TEACHER.seed

        def opened() -> GradientFeatures:
            close_teacher()
            window, budget = TEACHER.window, TEACHER.tokens_per_batch
            return logra.projected_gradients(self._load(), rank, seed, window, budget)

        folder = self.folder / "projected" / self._made_by(logra)
        return KeptFeatures(folder, functools.cache(opened), rank * rank)

    def representations(self) -> KeptVectors:
        """Rep-Sim's vectors, of the same target model."""

        def opened() -> representation.Representations:
            close_teacher()
            return representation.Representations(
                self._load(), TEACHER.window, 4 * TEACHER.tokens_per_batch
            )

        folder = self.folder / "representations" / self._made_by(representation)
        return KeptVectors(folder, functools.cache(opened))

    def vectors(self, one: InfluenceEncoder) -> KeptVectors:
        """The encoder with its vectors stored."""
        key = fingerprint.of_text(one.fingerprint, FORMAT)
        return KeptVectors(self.folder / "vectors" / key, lambda: one)

    def _made_by(self, module: ModuleType) -> str:
        """Key of what this code makes of the target model."""
        return fingerprint.of_text(TEACHER.key(self.target), measure.code(module))

    def _load(self) -> target_model.TargetModel:
        return target_model.load_target(
            target_model.unpack(self.files, self.folder / "models"), TEACHER.dtype
        )
