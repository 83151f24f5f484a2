"""Pictures decode, are small, repeatable, and cope with any name and with no data."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from influcoder_lib.report.model import FunnelRow
from influcoder_lib.report.pictures import DARK, LIGHT, funnel, score_histogram, threshold_curve
from tests.lib.report.parts import merge


@pytest.fixture
def draw_all(make_rule, make_decided, summarise, make_context):
    def draw(scores, labels, shards, theme=LIGHT, threshold=0.25):
        rules = [make_rule(threshold=threshold)]
        part = summarise("a", make_decided("a", scores, rules, labels), rules)
        behavior = merge([part], rules, make_context(rules)).behaviors[0]
        return (
            score_histogram(behavior, theme),
            threshold_curve(behavior, theme),
            funnel(shards, theme),
        )

    return draw


def _crowd():
    scores = np.random.default_rng(0).normal(0, 0.3, 3000).clip(-1, 1)
    labels = [f"label number {i % 9} with a name that goes on and on and on" for i in range(3000)]
    shards = [FunnelRow(f"shard-{i}.jsonl", 100 * i, i, 3) for i in range(40)]
    return scores, labels, shards


NAMES = ["$x^2$", r"\$\frac{", "_hidden", "two\nlines", "<b>&", "{{7*7}}"]
CASES = {
    "crowded": _crowd(),
    "empty": ([], [], []),
    "one sample": ([0.3], [None], [FunnelRow("a", 0, 1, 0)]),
    "odd names": ([0.1] * 6, NAMES, [FunnelRow(name, 1, 0, 0) for name in NAMES]),
}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("case", CASES)
def test_every_picture_is_a_small_png(draw_all, case, theme):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = draw_all(*CASES[case], theme)
    for png in pictures:
        image = Image.open(io.BytesIO(png))
        image.load()
        assert (image.format, image.size) == ("PNG", (900, 420))
        assert len(png) < 60_000


def test_equal_input_gives_equal_bytes(draw_all):
    assert draw_all(*_crowd()) == draw_all(*_crowd())


def test_the_threshold_is_drawn(draw_all):
    here, there = (draw_all(*_crowd(), threshold=threshold) for threshold in (0.1, 0.4))
    assert here[0] != there[0]
    assert here[1] != there[1]


def test_both_appearances_have_their_own_background(draw_all):
    for theme, corner in ((LIGHT, (255, 255, 255)), (DARK, (22, 27, 34))):
        for png in draw_all(*_crowd(), theme):
            assert Image.open(io.BytesIO(png)).convert("RGB").getpixel((1, 1)) == corner
