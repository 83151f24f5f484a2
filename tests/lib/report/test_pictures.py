"""Pictures decode, are small, repeatable, and cope with any name and with no data."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from influcoder_lib.report import pictures
from influcoder_lib.report.model import FunnelRow
from influcoder_lib.report.pictures import (
    DARK,
    LIGHT,
    funnel,
    label_key,
    score_histogram,
    threshold_curve,
)
from tests.lib.report.parts import merge


@pytest.fixture
def make_behavior(make_rule, make_decided, summarise, make_context):
    def build(scores, labels, threshold=0.25):
        rules = [make_rule(threshold=threshold)]
        part = summarise("a", make_decided("a", scores, rules, labels), rules)
        return merge([part], rules, make_context(rules)).behaviors[0]

    return build


@pytest.fixture
def draw_all(make_behavior):
    def draw(scores, labels, shards, theme=LIGHT, threshold=0.25):
        behavior = make_behavior(scores, labels, threshold)
        return (
            score_histogram(behavior, theme),
            threshold_curve(behavior, theme),
            funnel(tuple(shards), theme),
        )

    return draw


def _crowd():
    scores = np.random.default_rng(0).normal(0, 0.3, 3000).clip(-1, 1)
    labels = [f"label number {i % 9} with a name that goes on and on and on" for i in range(3000)]
    shards = [FunnelRow(f"shard-{i}.jsonl", 100 * i, i, 3) for i in range(40)]
    return scores, labels, shards


NAMES = ["$x^2$", r"\$\frac{", "_hidden", "two\nlines", "<b>&", "{{7*7}}"]
UNWRITABLE = ["有害", "无害", "हानिकारक"]
CASES = {
    "crowded": _crowd(),
    "empty": ([], [], []),
    "one sample": ([0.3], [None], [FunnelRow("a", 0, 1, 0)]),
    "names that the font lacks": ([0.1] * 3, UNWRITABLE, []),
    "odd names": ([0.1] * 6, NAMES, [FunnelRow(name, 1, 0, 0) for name in NAMES]),
}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("case", CASES)
def test_every_picture_is_a_small_png(draw_all, case, theme):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_all(*CASES[case], theme)
    for png in drawn:
        image = Image.open(io.BytesIO(png))
        image.load()
        assert (image.format, image.size) == ("PNG", (900, 420))
        assert len(png) < 60_000


def test_equal_input_gives_equal_bytes(draw_all):
    first = draw_all(*_crowd())
    for draw in (score_histogram, threshold_curve, funnel):
        draw.cache_clear()
    again = draw_all(*_crowd())
    assert again == first
    assert all(one is not other for one, other in zip(again, first, strict=True))


def test_the_threshold_is_drawn(draw_all):
    here, there = (draw_all(*_crowd(), threshold=threshold) for threshold in (0.1, 0.4))
    assert here[0] != there[0]
    assert here[1] != there[1]


def test_both_appearances_have_their_own_background(draw_all):
    for theme, corner in ((LIGHT, (255, 255, 255)), (DARK, (22, 27, 34))):
        for png in draw_all(*_crowd(), theme):
            assert Image.open(io.BytesIO(png)).convert("RGB").getpixel((1, 1)) == corner


def test_labels_that_the_font_lacks_have_stand_ins_with_a_key(make_behavior, monkeypatch):
    legends = []
    monkeypatch.setattr(pictures, "_legend", lambda *given: legends.append(given[3]))
    labels = ["有害", "label 1", "无害", "é", None]
    behavior = make_behavior([0.1] * 5, labels)
    score_histogram(behavior, LIGHT)
    threshold_curve(behavior, LIGHT)
    key = "In the pictures, whose font lacks their letters: label 2 is 无害; label 3 is 有害."
    assert label_key(behavior) == key
    written = ["label 1", "é", "label 2", "label 3", "(none)"]
    assert legends == [[f"{name} (1)" for name in written], ["all samples", *written]]


def test_there_is_no_key_where_every_label_can_be_written(make_behavior):
    assert label_key(make_behavior([0.1] * 2, ["é", None])) == ""
    assert label_key(make_behavior([], [])) == ""


def test_both_pictures_of_a_behavior_have_their_scores_in_the_same_places(make_behavior):
    scores, labels, _ = _crowd()
    behavior = make_behavior(scores, labels)
    drawn = [score_histogram(behavior, LIGHT), threshold_curve(behavior, LIGHT)]
    # Just below the axes, where the marks of the scores are.
    marks = [np.flatnonzero(_ink(png)[371]) for png in drawn]
    assert len(marks[0]) > 5
    assert np.array_equal(*marks)


@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_nothing_is_cut_off_at_the_ends_nor_where_samples_are_many(make_behavior, end):
    behavior = make_behavior([-1.0, 0.3, 1.0], [None] * 3, threshold=end)
    many = tuple(
        replace(each, counts=tuple(10**10 * count for count in each.counts))
        for each in behavior.histograms
    )
    behavior = replace(behavior, histograms=many)
    for draw in (score_histogram, threshold_curve):
        ink = _ink(draw(behavior, LIGHT))
        border = ink.copy()
        border[2:-2, 2:-2] = False
        assert ink.any()
        assert not border.any()


def _ink(png: bytes) -> np.ndarray:
    """Which pixels (420, 900) of a light picture are not its background."""
    return (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) != 255).any(axis=2)
