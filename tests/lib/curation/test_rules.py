"""Rules: thresholds for shares and rates, what is refused, and what is stored of them."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom

from influcoder_lib.curation.rules import Rule, RuleSettings, calibrate, known_good_needed
from influcoder_lib.errors import DataError, SettingsError, StoreError

# Few values, so that scores tie.
GRID = st.integers(-16, 16).map(lambda step: step / 16)
SHARES = st.sampled_from([0.01, 0.05, 0.1, 0.29, 1 / 3, 0.5, 0.9])


def asked(kind="unwanted", method="fraction", value=0.1, statistic="max"):
    return RuleSettings("toxic", kind, method, value, statistic)


@given(st.lists(GRID, min_size=2, max_size=30), SHARES)
def test_unwanted_fraction_is_the_lowest_threshold_that_drops_at_most_the_share(scores, share):
    threshold = calibrate(asked(value=share), np.array(scores)).threshold
    limit = Fraction(str(share)) * len(scores)
    fitting = [t for t in scores if sum(s > t for s in scores) <= limit]
    assert threshold == min(fitting)


@given(st.lists(GRID, min_size=2, max_size=30), SHARES)
def test_wanted_fraction_is_the_highest_threshold_that_keeps_at_least_the_share(scores, share):
    threshold = calibrate(asked("wanted", value=share), np.array(scores)).threshold
    limit = Fraction(str(share)) * len(scores)
    fitting = [t for t in scores if sum(s >= t for s in scores) >= limit]
    assert threshold == max(fitting)


def test_a_fraction_means_its_decimal_notation():
    # 0.29 * 100 is 28.999… in binary floating point.
    scores = np.arange(100) / 128
    result = calibrate(asked(value=0.29), scores)
    assert (scores > result.threshold).sum() == 29
    assert (result.calibration_rows, result.known_good_rows) == (100, 0)


def test_scores_that_tie_at_the_threshold_are_not_dropped_and_are_kept():
    scores = np.array([0.5] * 9 + [0.75])
    assert calibrate(asked(value=0.3), scores).threshold == 0.5
    assert calibrate(asked("wanted", value=0.3), scores).threshold == 0.5


@pytest.mark.parametrize("kind", ["unwanted", "wanted"])
@pytest.mark.parametrize(("rows", "rate"), [(99, 0.05), (19, 0.05), (50, 0.1)])
def test_false_drop_rate_holds_over_many_draws_of_known_good_samples(kind, rows, rate):
    rng = np.random.default_rng(rows)
    draws, dropped = 3000, 0
    for _ in range(draws):
        *known, new = rng.normal(size=rows + 1).astype(np.float32)
        threshold = calibrate(
            asked(kind, "false_drop_rate", rate), np.zeros(2), np.array(known)
        ).threshold
        dropped += new > threshold if kind == "unwanted" else new < threshold
    exact = int(rate * (rows + 1) + 1e-9) / (rows + 1)
    low, high = binom.interval(0.999, draws, exact)
    assert exact <= rate
    assert low <= dropped <= high


def test_false_drop_rate_is_not_exceeded_when_scores_tie():
    rng = np.random.default_rng(0)
    draws, dropped = 2000, 0
    for _ in range(draws):
        *known, new = rng.integers(0, 4, size=40) / 8
        dropped += (
            new > calibrate(asked(method="false_drop_rate"), np.zeros(2), np.array(known)).threshold
        )
    assert dropped <= binom.ppf(0.999, draws, 0.1)


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.1, 9), (0.3, 3), (0.01, 99)])
def test_too_few_known_good_rows_is_an_error_that_says_how_many_are_needed(rate, needed):
    wish = asked(method="false_drop_rate", value=rate)
    enough = np.linspace(0, 1, needed, dtype=np.float32)
    assert calibrate(wish, np.zeros(2), enough).threshold == enough.max()
    with pytest.raises(SettingsError, match=rf"at least {needed} .* there are {needed - 1}"):
        calibrate(wish, np.zeros(2), enough[1:])
    with pytest.raises(SettingsError, match=rf"at least {needed} .* there are 0"):
        calibrate(wish, np.zeros(2))


@example(0.3333333333333333)  # just below 1/3, so that 2 rows are one too few
@example(0.1)
@given(st.floats(0.005, 1, exclude_max=True))
def test_calibration_takes_as_many_known_good_rows_as_are_said_to_be_needed(rate):
    wish = asked(method="false_drop_rate", value=rate)
    needed = known_good_needed(rate)
    assert calibrate(wish, np.zeros(2), np.zeros(needed)).known_good_rows == needed
    with pytest.raises(SettingsError, match=f"needs at least {needed} "):
        calibrate(wish, np.zeros(2), np.zeros(needed - 1))


@pytest.mark.parametrize(
    "wish",
    [
        asked(value=0.0),
        asked(value=1.0),
        asked(value=float("nan")),
        asked(method="false_drop_rate", value=0),
        asked(method="false_drop_rate", value=1.5),
        asked(method="threshold", value=1.01),
        asked(method="threshold", value=-1.01),
        asked(method="median"),
        asked(kind="good"),
        asked(statistic="sum"),
    ],
)
def test_impossible_settings_are_refused_and_name_what_is_allowed(wish):
    with pytest.raises(SettingsError) as caught:
        calibrate(wish, np.zeros(50), np.zeros(50))
    assert "toxic" in caught.value.where
    assert caught.value.allowed


def test_calibration_needs_two_scores_and_finite_ones():
    with pytest.raises(SettingsError, match="on 1 samples"):
        calibrate(asked(), np.zeros(1))
    with pytest.raises(DataError, match="calibration scores"):
        calibrate(asked(), np.array([0.0, np.inf]))
    with pytest.raises(DataError, match="known-good scores"):
        calibrate(asked(), np.zeros(2), np.array([np.nan]))


def test_a_rule_survives_json():
    before = calibrate(asked(), np.linspace(0, 1, 37, dtype=np.float32))
    assert Rule.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    with pytest.raises(StoreError, match="threshold"):
        Rule.from_dict({k: v for k, v in before.to_dict().items() if k != "threshold"})
