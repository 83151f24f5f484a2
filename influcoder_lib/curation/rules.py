"""Rules and their calibration: from what the user asks for to a fixed threshold.

A rule is calibrated once and applied to any shard afterwards: a new shard moves nobody's
threshold. All comparisons are between 32-bit floats, which is what scores are.
"""

import json
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from influcoder_lib.errors import DataError, SettingsError, StoreError

Kind = Literal["unwanted", "wanted"]
Method = Literal["threshold", "fraction", "false_drop_rate"]
Statistic = Literal["mean", "max"]


@dataclass(frozen=True)
class RuleSettings:
    """What the user asks for: `value` is a cosine, a share or a rate, as `method` has it."""

    behavior: str
    kind: Kind
    method: Method
    value: float
    statistic: Statistic

    @property
    def score_column(self) -> str:
        """The column of a table of scores that the rule reads: b_mean or b_max of behavior b."""
        return f"{self.behavior}_{self.statistic}"


@dataclass(frozen=True)
class Rule(RuleSettings):
    """A calibrated rule.

    An unwanted behavior drops a sample whose score is strictly above `threshold`; a wanted one
    claims a sample whose score is `threshold` or more. `threshold` is a cosine, exactly
    representable in 32 bits. The rows are the scores at hand when it was calibrated; only
    `false_drop_rate` reads the known-good ones.
    """

    threshold: float
    calibration_rows: int
    known_good_rows: int

    @property
    def label(self) -> str:
        """The rule in words, e.g. "unwanted fraction 0.05 on max"."""
        return f"{self.kind} {self.method.replace('_', ' ')} {self.value:g} on {self.statistic}"

    def score(self) -> pl.Expr:
        """The score that the rule reads, Float32."""
        return pl.col(self.score_column).cast(pl.Float32)

    def hit(self) -> pl.Expr:
        """Whether the score lies beyond the threshold: an unwanted sample is dropped, a wanted one
        claimed. Boolean."""
        threshold = pl.lit(self.threshold, dtype=pl.Float32)
        return self.score() > threshold if self.kind == "unwanted" else self.score() >= threshold

    def to_dict(self) -> dict[str, Any]:
        """The rule as JSON-ready values; `from_dict` is the way back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Rule":
        """A rule from its stored values.

        Raises:
            StoreError: a value is missing or unknown.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise StoreError(
                "A stored decision rule does not have the values that it should.",
                where=f"differing: {', '.join(sorted(set(values) ^ expected))}",
                fix="materialise decision_rule again",
            )
        return cls(**values)


def read_rules(path: Path) -> list[Rule]:
    """The calibrated rules of a stored decision_rule, one a behavior.

    Raises:
        StoreError: a value of a rule is missing or unknown.
    """
    return [Rule.from_dict(values) for values in json.loads(path.read_text())]


def calibrate(
    settings: RuleSettings,
    calibration_scores: NDArray[np.float32],
    known_good_scores: NDArray[np.float32] | None = None,
) -> Rule:
    """Fix a rule's threshold.

    `calibration_scores` (M,) and `known_good_scores` (G,) are scores of `settings.statistic`
    for samples that the encoder was not trained on; cosines, float32. With `value` v:

    - `threshold`: v itself.
    - `fraction`, unwanted: the lowest calibration score with at most floor(v·M) calibration
      scores strictly above it, so at most the share v is dropped, fewer when scores tie at the
      threshold. Wanted: the highest calibration score that at least ceil(v·M) calibration scores
      reach, so at least the share v is kept, more when scores tie.
    - `false_drop_rate`: split conformal (Papadopoulos et al. 2002; Vovk et al. 2005). With
      k = floor(v·(G + 1)), unwanted takes the k-th highest known-good score and wanted the
      k-th lowest. A new sample exchangeable with the known-good ones is dropped with probability
      at most k / (G + 1) <= v, averaged over draws of the known-good set: exactly that when no
      scores tie, less when they do.

    v·M is computed on v's decimal notation, so 0.29 of 100 is 29.

    Raises:
        SettingsError: an unknown kind, method or statistic; `value` outside [-1, 1] for
            `threshold` or (0, 1) for the others; fewer than 2 calibration scores; fewer than
            1/v - 1 known-good scores for `false_drop_rate`.
        DataError: a score that is not finite.
    """
    check_settings(settings)
    scores = _descending(calibration_scores, "calibration", settings)
    good = _descending(
        np.empty(0) if known_good_scores is None else known_good_scores, "known-good", settings
    )
    if len(scores) < 2:
        raise SettingsError(
            f"The rule for {settings.behavior} cannot be calibrated on {len(scores)} samples.",
            allowed="at least 2 calibration samples",
            fix="draw more candidates a shard, or add shards",
        )
    if settings.method == "threshold":
        threshold = np.float32(settings.value)
    elif settings.method == "fraction":
        threshold = _fraction_threshold(settings, scores)
    else:
        threshold = _conformal_threshold(settings, good)
    return Rule(
        **asdict(settings),
        threshold=float(threshold),
        calibration_rows=len(scores),
        known_good_rows=len(good),
    )


def check_settings(settings: RuleSettings) -> None:
    """Refuse a rule that cannot mean anything.

    Raises:
        SettingsError: see `calibrate`.
    """
    for key, kinds in (("kind", Kind), ("method", Method), ("statistic", Statistic)):
        if getattr(settings, key) not in get_args(kinds):
            raise SettingsError(
                f"{getattr(settings, key)!r} is no {key} of a rule.",
                where=f"behavior {settings.behavior}, rule.{key}",
                allowed=", ".join(get_args(kinds)),
            )
    value = settings.value
    if settings.method == "threshold":
        fits, allowed = -1 <= value <= 1, "a cosine from -1 to 1"
    else:
        fits, allowed = 0 < value < 1, "a number between 0 and 1, both excluded"
    if not fits:
        raise SettingsError(
            f"{value} is impossible as a rule's {settings.method.replace('_', ' ')}.",
            where=f"behavior {settings.behavior}, rule.value",
            allowed=allowed,
        )


def known_good_needed(rate: float) -> int:
    """The fewest known-good scores that a `false_drop_rate`, in (0, 1), is calibrated on: the least
    G with k >= 1, as in `calibrate`."""
    return ceil(1 / Fraction(str(rate)) - 1)


def _descending(values: Any, name: str, settings: RuleSettings) -> NDArray[np.float32]:
    scores = np.asarray(values, dtype=np.float32)
    if scores.ndim != 1:
        raise ValueError(f"{name} scores must be one-dimensional, not {scores.shape}")
    if not np.all(np.isfinite(scores)):
        raise DataError(
            f"The {name} scores hold a number that is not finite.",
            where=f"behavior {settings.behavior}",
        )
    return np.sort(scores)[::-1]


def _fraction_threshold(settings: RuleSettings, scores: NDArray[np.float32]) -> np.float32:
    share = Fraction(str(settings.value)) * len(scores)
    return scores[floor(share)] if settings.kind == "unwanted" else scores[ceil(share) - 1]


def check_known_good(settings: RuleSettings, given: int) -> None:
    """Whether a `false_drop_rate` can be calibrated on so many known-good samples.

    Raises:
        SettingsError: they are too few.
    """
    needed = known_good_needed(settings.value)
    if given < needed:
        raise SettingsError(
            f"A false drop rate of {settings.value:g} for {settings.behavior} needs at least "
            f"{needed} known-good samples and there are {given}.",
            where=f"behavior {settings.behavior}, rule.value",
            fix=f"give {needed} known-good samples or more, or allow a higher rate",
        )


def _conformal_threshold(settings: RuleSettings, good: NDArray[np.float32]) -> np.float32:
    check_known_good(settings, len(good))
    rank = floor(Fraction(str(settings.value)) * (len(good) + 1))
    return good[rank - 1] if settings.kind == "unwanted" else good[len(good) - rank]
