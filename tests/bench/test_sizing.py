"""The sizing page is what the command prints, and follows the rates."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import sizing

PROJECT = Path(__file__).parents[2]
SAID = json.loads((PROJECT / "bench" / "rates.json").read_text())


def test_the_page_is_what_the_command_prints():
    command = [sys.executable, "-m", "bench.sizing"]
    printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert (PROJECT / "docs" / "sizing.md").read_text() == printed.stdout


def test_twice_the_rate_is_half_the_time_of_embedding():
    fast = copy.deepcopy(SAID)
    fast["measured"]["kernel_texts"][0] *= 2
    slow_hours, fast_hours = (
        next(sizing._costs(sizing.Rates(said), 10**6)).value for said in (SAID, fast)
    )
    assert slow_hours == pytest.approx(10**6 / 82.9 / 3600)
    assert fast_hours == pytest.approx(slow_hours / 2)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.5, "0.5 s"), (90, "1.5 min"), (86_400, "1.0 days")]
)
def test_a_time_is_said_in_its_largest_unit(seconds, said):
    assert sizing.duration(seconds) == said


def test_every_rate_says_where_it_comes_from():
    for kind in ("measured", "not_measured"):
        for value, unit, origin in SAID[kind].values():
            assert value > 0
            assert unit
            assert len(origin) > 10
