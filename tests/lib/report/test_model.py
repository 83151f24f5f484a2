"""The merged report: funnel rows, warnings, threshold curves and tables."""

import math

import numpy as np
import polars as pl
import pytest

from influcoder_lib.report.model import Measured, Table, merge, threshold_curves
from influcoder_lib.report.wording import behavior_tiles, tiles, written_rows


def _merge(parts, rules, expected=("a.jsonl",)):
    return merge(parts, rules, [], "Headline", {}, "today", expected_shards=expected)


def test_the_funnel_of_the_report_adds_up_by_shard_and_by_label(make_report):
    report = make_report()
    assert report.total.rows_in == 82
    assert sum(row.rows_in for row in report.by_shard) == 82
    assert sum(row.dropped for row in report.by_label) == report.total.dropped
    assert sum(reason.rows for reason in report.drop_reasons) == report.total.dropped
    assert [row.name for row in report.by_shard] == ["one.jsonl", "two.jsonl"]


def test_the_order_of_the_shards_does_not_matter(make_rule, make_decided, summarise):
    rules = [make_rule()]
    parts = [summarise(shard, make_decided(shard, [0.1, 0.3, 0.3], rules), rules) for shard in "ab"]
    assert _merge(parts, rules, "ab") == _merge(parts[::-1], rules, "ab")


@pytest.mark.parametrize(
    ("scores", "expected", "warning"),
    [
        ([0.1, 0.2], ["a.jsonl"], "Nothing was dropped"),
        ([0.3, 0.4, 0.1], ["a.jsonl"], "More than half of the corpus was dropped: 2 of 3"),
        ([0.3, 0.3], ["a.jsonl"], "All 2 samples have the same score for behavior toxic"),
        ([0.1], ["a.jsonl", "b.csv"], "lacks 1 of the corpus's shards: b.csv"),
        ([], ["a.jsonl"], "no valid sample"),
        ([0.1] * 9 + [0.3], ["a.jsonl"], None),
        ([0.1, 0.3], ["a.jsonl"], "asked to drop 20.0% and reaches 50.0%"),
    ],
)
def test_warnings_appear_when_and_only_when_they_apply(
    make_rule, make_decided, summarise, scores, expected, warning
):
    rules = [make_rule()]
    part = summarise("a.jsonl", make_decided("a.jsonl", scores, rules), rules)
    warnings = _merge([part], rules, expected).warnings
    if warning is None:
        assert warnings == ()
    else:
        assert any(warning in text for text in warnings)


def test_no_shard_at_all_is_a_report_with_a_warning(make_rule):
    report = _merge([], [make_rule()])
    assert report.total.rows_in == 0
    assert any("a.jsonl" in warning for warning in report.warnings)


@pytest.mark.parametrize("kind", ["unwanted", "wanted"])
def test_threshold_curves_match_counting(make_rule, make_decided, summarise, kind):
    rules = [make_rule(kind=kind)]
    # Bin centers: no score lies on a threshold.
    scores = (np.random.default_rng(1).integers(-50, 50, 60) + 0.5) / 50
    labels = ["xy"[i % 2] for i in range(60)]
    decided = make_decided("a.jsonl", scores, rules, labels)
    behavior = _merge([summarise("a.jsonl", decided, rules)], rules).behaviors[0]
    curves = threshold_curves(behavior)
    assert [curve.label for curve in curves] == ["all samples", "x", "y"]
    for curve in curves:
        own = decided if curve.label == "all samples" else decided.filter(label=curve.label)
        for edge, share in zip((np.arange(101) - 50) / 50, curve.shares, strict=True):
            above = pl.col("toxic_max") > edge
            dropped = own.filter(above if kind == "unwanted" else ~above).height
            assert share == pytest.approx(dropped / own.height)


def test_asked_and_actual_share_stand_side_by_side(make_rule, make_decided, summarise):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2, 0.3, 0.0], rules, dropped_by_reviewer=(0,))
    report = _merge([summarise("a.jsonl", decided, rules)], rules)
    assert (report.behaviors[0].asked_share, report.behaviors[0].actual_share) == (0.2, 0.25)
    values = {tile.name: tile.value for tile in behavior_tiles(report.behaviors[0])}
    assert values["asked to be dropped"] == "20.0 %"
    assert values["reached by the rule"] == "25.0 %"


@pytest.mark.parametrize(
    ("method", "value", "asked"),
    [("threshold", 0.25, "—"), ("false_drop_rate", 0.01, "≤ 1.0 %")],
)
def test_rules_that_ask_for_no_share_say_what_they_ask_for(
    make_rule, make_decided, summarise, method, value, asked
):
    rules = [make_rule(method=method, value=value, known_good_rows=99)]
    part = summarise("a.jsonl", make_decided("a.jsonl", [0.1, 0.3], rules), rules)
    report = _merge([part], rules)
    assert behavior_tiles(report.behaviors[0])[1].value == asked


def test_tiles_name_the_key_figures(make_report):
    values = {tile.name: tile.value for tile in tiles(make_report())}
    assert values["rows in"] == "82"
    assert values["truncated, encoder"] == "5.0 %"
    assert values["truncated, teacher"] == "33.3 %"


def test_the_best_of_each_column_is_marked_as_it_reads():
    table = Table(
        "t",
        ["method", "rho", "ms", "seeds", "alone"],
        [
            ["a", 0.5, 2.0, 3, None],
            ["b", Measured(0.50004, 0.1), 1.0, 1, 0.3],
            ["c", 0.4, None, 9, "text"],
        ],
        lower_is_better=["ms"],
    )
    rows = written_rows(table)
    assert [[cell.text for cell in row] for row in rows] == [
        ["a", "0.500", "2.000", "3", "—"],
        ["b", "0.500 ± 0.100", "1.000", "1", "0.300"],
        ["c", "0.400", "—", "9", "text"],
    ]
    assert [[cell.best for cell in row] for row in rows] == [
        [False, True, False, False, False],
        [False, True, True, False, False],
        [False, False, False, False, False],
    ]


@pytest.mark.parametrize("row", [["a"], ["a", math.nan], ["a", Measured(0.1, math.inf)]])
def test_an_impossible_table_is_refused(row):
    with pytest.raises(ValueError, match="Table 't'"):
        Table("t", ["method", "rho"], [row])
