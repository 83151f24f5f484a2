"""Recipes: how an encoder is trained, selectable by name."""

import math
from dataclasses import dataclass
from typing import Literal

from influcoder_lib.errors import SettingsError
from influcoder_lib.precision import PRECISIONS, Precision


@dataclass(frozen=True)
class Recipe:
    """How an encoder is trained; the defaults are the published recipe (arXiv 2606.13668).

    `warmup` is the share of all steps with a rising learning rate, `hard_share` the share of a
    step's candidates that are hard ones, in [0, 1); `alpha` in [0, 1] weighs the two losses.
    `dropout` is the model's own or none at all, `precision` that of the matrix products; neither
    is part of what was published, and both are for speed (no random numbers are drawn, and
    with AMX a CPU multiplies bfloat16 ten times as fast).

    Raises:
        SettingsError: a value is impossible.
    """

    name: str = "reference"
    epochs: int = 8
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    queries_per_step: int = 8
    candidates_per_step: int = 16
    alpha: float = 0.5
    temperature: float = 0.05
    hard_share: float = 0.0
    gradient_clip: float = 1.0
    dropout: Literal["own", "none"] = "own"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.queries_per_step >= 1, "queries_per_step", self.queries_per_step, "1 or more")
        _require(
            self.candidates_per_step >= 2, "candidates_per_step", self.candidates_per_step, ">= 2"
        )
        for key in ("learning_rate", "temperature", "gradient_clip"):
            value = getattr(self, key)
            _require(0 < value < math.inf, key, value, "a number above 0")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more")
        _require(self.dropout in ("own", "none"), "dropout", self.dropout, "own, none")
        _require(self.precision in PRECISIONS, "precision", self.precision, ", ".join(PRECISIONS))
        _require(0 <= self.alpha <= 1, "alpha", self.alpha, "0 to 1")
        for key in ("warmup", "hard_share"):
            _require(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 to below 1")


def _require(fine: bool, key: str, value: object, allowed: str) -> None:
    if not fine:
        raise SettingsError(
            f"The recipe's {key} cannot be {value}.", where=f"recipe, {key}", allowed=allowed
        )


RECIPES: dict[str, Recipe] = {
    "reference": Recipe(),
    "lean": Recipe(name="lean", dropout="none", precision="auto"),
}
"""`reference` is the published recipe. `lean` has its objective and steps, without dropout and with
matrix products in bfloat16 where the machine has it: more than twice as fast on such a CPU."""
