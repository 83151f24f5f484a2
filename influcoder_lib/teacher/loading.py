"""Opening the teacher: target model, adapter and sketch from settings, kept for the process; and
training an adapter for it."""

import functools
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from influcoder_lib import fingerprint, hardware, memory, models, rows, target_model
from influcoder_lib.precision import Precision
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import gradients
from influcoder_lib.teacher.adapters import fresh_adapter, trained_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.sketch import CountSketch
from influcoder_lib.teacher.warmup import Checkpoint, WarmupSettings, warm_up

# A CPU gains nothing from more; a GPU has done with fewer before it is told what comes next.
_GRADIENT_TOKENS = {"cpu": 1024, "cuda": 32_768}


@dataclass(frozen=True)
class TeacherSettings:
    """What shapes a gradient feature, and `tokens_per_batch`, which only shapes memory.

    `adapter` is the folder of a trained adapter; None takes a fresh one of `rank` and `seed`.
    """

    dtype: Precision
    window: int
    tokens_per_batch: int
    rank: int
    seed: int
    adapter: Path | None
    sketch_dimensions: int
    sketch_seed: int

    def key(self, model: str) -> str:
        """Name of the row store for features of a model (and adapter) with this fingerprint."""
        shaping = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("tokens_per_batch", "adapter")
        }
        versions = (gradients.CODE_VERSION, rows.FORMAT)
        return fingerprint.of_text(model, *versions, fingerprint.of_json(shaping))


def gradient_tokens(asked: int | None, window: int) -> int:
    """Tokens in a batch of gradients, of samples of at most `window`: as many as are asked for, or
    what suits the device that models run on."""
    return asked or max(window, _GRADIENT_TOKENS[hardware.device().type])


@functools.lru_cache(maxsize=1)
def open_teacher(
    files: models.ModelFiles, cache: Path, settings: TeacherSettings
) -> GradientFeatures:
    """Load the target model and prepare it for gradient features.

    Raises:
        ModelError: model or adapter cannot be used.
        SettingsError: the window has more tokens than the model has places for.
    """
    target_model.quiet()
    target = target_model.load_target(target_model.unpack(files, cache), settings.dtype)
    layers = (
        fresh_adapter(target.model, settings.rank, settings.seed)
        if settings.adapter is None
        else trained_adapter(target.model, settings.adapter)
    )
    sketch = CountSketch(settings.sketch_dimensions, settings.sketch_seed)
    return GradientFeatures(target, layers, sketch, settings.window, settings.tokens_per_batch)


def warm_up_target(
    files: models.ModelFiles,
    cache: Path,
    settings: TeacherSettings,
    training: WarmupSettings,
    samples: Sequence[Sample],
    folder: Path,
    say: Callable[[str], None],
) -> list[Checkpoint]:
    """Load the target model, train a fresh adapter on the samples and forget the model again.

    Raises:
        DataError: no sample is usable.
        ModelError: the model cannot be used.
        SettingsError: the window has more tokens than the model has places for.
    """
    close_teacher()
    target_model.quiet()
    target = target_model.load_target(target_model.unpack(files, cache), settings.dtype)
    return warm_up(
        target, samples, settings.window, settings.tokens_per_batch, training, folder, say
    )


def close_teacher() -> None:
    """Forget the loaded teacher: the student needs the memory."""
    open_teacher.cache_clear()
    gc.collect()
    memory.release()
