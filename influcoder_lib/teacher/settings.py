"""What shapes a gradient feature: settings, and the version of the code that computes it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from influcoder_lib import fingerprint, rows
from influcoder_lib.precision import Precision

# Of gradients, adapters, tokens and sketch together.
CODE_VERSION = "4"


@dataclass(frozen=True)
class TeacherSettings:
    """What shapes a gradient feature, and `tokens_per_batch`, which only shapes memory: None takes
    as many as suit the device.

    `adapter` is the folder of a trained adapter; None takes a fresh one of `rank` and `seed`.
    """

    dtype: Precision
    window: int
    tokens_per_batch: int | None
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
        versions = (CODE_VERSION, rows.FORMAT)
        return fingerprint.of_text(model, *versions, fingerprint.of_json(shaping))
