"""Opening the teacher: target model, adapter and sketch from settings, kept for the process; and
training an adapter for it."""

import functools
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

from influcoder_lib import hardware, memory, models, target_model
from influcoder_lib.samples import Sample
from influcoder_lib.teacher.adapters import fresh_adapter, trained_adapter
from influcoder_lib.teacher.gradients import GradientFeatures
from influcoder_lib.teacher.settings import TeacherSettings
from influcoder_lib.teacher.sketch import CountSketch
from influcoder_lib.teacher.warmup import Checkpoint, WarmupSettings, warm_up


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
    tokens = hardware.gradient_tokens(settings.tokens_per_batch, settings.window)
    return GradientFeatures(target, layers, sketch, settings.window, tokens)


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
    tokens = hardware.gradient_tokens(settings.tokens_per_batch, settings.window)
    return warm_up(target, samples, settings.window, tokens, training, folder, say)


def close_teacher() -> None:
    """Forget the loaded teacher: the student needs the memory."""
    open_teacher.cache_clear()
    gc.collect()
    memory.release()
