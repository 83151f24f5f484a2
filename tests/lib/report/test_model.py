"""The merged report: funnel rows, warnings, threshold curves and tables."""

import math

import numpy as np
import polars as pl
import pytest

from influcoder_lib.report import groups
from influcoder_lib.report.merging import MOST_GROUPS, BehaviorFacts
from influcoder_lib.report.model import Measured, Table, threshold_curves
from influcoder_lib.report.wording import behavior_tiles, tiles, written_rows
from tests.lib.report.parts import merge


def test_the_funnel_of_the_report_adds_up_by_shard_and_by_label(make_report):
    report = make_report()
    assert report.total.rows_in == 82
    assert sum(row.rows_in for row in report.by_shard) == 82
    assert sum(row.dropped for row in report.by_label) == report.total.dropped
    assert sum(reason.rows for reason in report.drop_reasons) == report.total.dropped
    assert [row.name for row in report.by_shard] == ["one.jsonl", "two.jsonl"]


def test_the_order_of_the_shards_does_not_matter(make_rule, make_decided, summarise, make_context):
    rules = [make_rule()]
    parts = [summarise(shard, make_decided(shard, [0.1, 0.3, 0.3], rules), rules) for shard in "ab"]
    context = make_context(rules)
    assert merge(parts, rules, context) == merge(parts[::-1], rules, context)


@pytest.mark.parametrize(
    ("in_use", "named"), [("2", None), ("1", "version 1"), (None, "the untrained encoder")]
)
def test_a_report_says_whose_figures_it_shows_if_not_those_of_the_encoder_in_use(
    make_rule, make_context, make_standing, in_use, named
):
    rules = [make_rule()]
    tables = [Table("One", ["a"], [["b"]], "Its note."), Table("Two", ["a"], [["b"]])]
    standing = make_standing(in_use=in_use, latest="2")
    said = f"In use is {named}: the influence encoder of this comparison is version 2, which is"
    said = f"{said} not in use. " if named else ""
    report = merge([], rules, make_context(rules, tables=tables, standing=standing))
    assert report.headline == f"{said}Headline"
    assert [table.note for table in report.tables] == [f"{said}Its note.", said.strip()]


@pytest.mark.parametrize("kind", ["unwanted", "wanted"])
def test_threshold_curves_match_counting(make_rule, make_decided, summarise, make_context, kind):
    rules = [make_rule(kind=kind)]
    # Bin centers: no score lies on a threshold.
    scores = (np.random.default_rng(1).integers(-50, 50, 60) + 0.5) / 50
    labels = ["xy"[i % 2] for i in range(60)]
    decided = make_decided("a.jsonl", scores, rules, labels)
    behavior = merge([summarise("a.jsonl", decided, rules)], rules, make_context(rules)).behaviors[
        0
    ]
    curves = threshold_curves(behavior)
    assert [curve.label for curve in curves] == ["all samples", "x", "y"]
    for curve in curves:
        own = decided if curve.label == "all samples" else decided.filter(label=curve.label)
        for edge, share in zip((np.arange(101) - 50) / 50, curve.shares, strict=True):
            above = pl.col("toxic_max") > edge
            dropped = own.filter(above if kind == "unwanted" else ~above).height
            assert share == pytest.approx(dropped / own.height)


def test_asked_and_actual_share_stand_side_by_side(
    make_rule, make_decided, summarise, make_context
):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2, 0.3, 0.0], rules, dropped_by_reviewer=(0,))
    report = merge([summarise("a.jsonl", decided, rules)], rules, make_context(rules))
    assert (report.behaviors[0].asked_share, report.behaviors[0].actual_share) == (0.2, 0.25)
    values = {tile.name: tile.value for tile in behavior_tiles(report.behaviors[0])}
    assert values["asked to be dropped"] == "20.0 %"
    assert values["reached by the rule"] == "25.0 %"


@pytest.mark.parametrize("group", ["label", "source"])
def test_a_label_or_source_for_every_row_takes_no_room_to_speak_of(
    make_rule, make_decided, summarise, make_context, monkeypatch, group
):
    monkeypatch.setattr(groups, "MOST_NAMED", 2 * MOST_GROUPS)
    rules, count = [make_rule()], 10 * MOST_GROUPS
    decided = make_decided("a.jsonl", [0.1] * count, rules)
    decided = decided.with_columns(pl.Series(group, map(str, range(count))))
    part = summarise("a.jsonl", decided, rules)
    assert len(part["groups"][group]) == 2 * MOST_GROUPS + 1
    shown = getattr(merge([part], rules, make_context(rules)), f"by_{group}")
    assert len(shown) == MOST_GROUPS
    assert (shown[-1].name, shown[-1].kept) == ("all others", count - MOST_GROUPS + 1)


@pytest.mark.parametrize("kind", ["unwanted", "wanted"])
@pytest.mark.parametrize(
    ("method", "value", "name", "asked"),
    [
        ("threshold", 0.25, "asked to be {}", "—"),
        ("false_drop_rate", 0.01, "good samples dropped, at most", "1.0 %"),
    ],
)
def test_rules_that_ask_for_no_share_say_what_they_ask_for(
    make_rule, make_decided, summarise, make_context, kind, method, value, name, asked
):
    rules = [make_rule(kind=kind, method=method, value=value, known_good_rows=99)]
    part = summarise("a.jsonl", make_decided("a.jsonl", [0.1, 0.3], rules), rules)
    report = merge([part], rules, make_context(rules))
    values = {tile.name: tile.value for tile in behavior_tiles(report.behaviors[0])}
    name = name.format("dropped" if kind == "unwanted" else "kept")
    assert {name: asked}.items() <= values.items()
    assert [each for each in values if each.startswith(("asked", "good"))] == [name]


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


def test_groups_come_largest_first_and_lengths_shortest_first(
    make_rule, make_decided, summarise, make_context
):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1] * 6, rules, ["x", "y", "y", None, None, None])
    texts = ["x" * 10_000, "x" * 100, "x" * 100, "да", "да", "я" * 99]
    decided = decided.with_columns(prompt=pl.lit(""), response=pl.Series(texts))
    report = merge([summarise("a.jsonl", decided, rules)], rules, make_context(rules))
    assert [(row.name, row.kept) for row in report.by_label] == [(None, 3), ("y", 2), ("x", 1)]
    assert [(row.name, row.kept) for row in report.by_length] == [
        ("under 100", 3),
        ("100 to 299", 2),
        ("10,000 or more", 1),
    ]
    assert [(row.name, row.kept) for row in report.by_script] == [("Cyrillic", 3), ("Latin", 3)]
    assert report.by_source == ()


def test_many_small_groups_are_added_up(make_rule, make_decided, summarise, make_context):
    rules = [make_rule()]
    labels = [f"label {i}" for i in range(MOST_GROUPS + 5)] + ["label 0"]
    scores = [0.1] * MOST_GROUPS + [0.3] * 6
    part = summarise("a.jsonl", make_decided("a.jsonl", scores, rules, labels), rules)
    shown = merge([part], rules, make_context(rules)).by_label
    assert len(shown) == MOST_GROUPS
    assert (shown[0].name, shown[0].rows_in) == ("label 0", 2)
    assert shown[-1].name == "6 others"
    assert sum(row.kept for row in shown) == MOST_GROUPS
    assert sum(row.dropped for row in shown) == 6


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "unwanted",
            [("bad dropped", "66.7 %", "2 of 3"), ("lookalike lost", "25.0 %", "1 of 4")],
        ),
        (
            "wanted",
            [("bad kept", "66.7 %", "2 of 3"), ("lookalike let through", "25.0 %", "1 of 4")],
        ),
    ],
)
def test_a_behavior_says_what_it_caught_and_what_it_cost(
    make_rule, make_decided, summarise, make_context, kind, expected
):
    rules = [make_rule(kind=kind)]
    labels = ["bad"] * 3 + ["lookalike"] * 4 + [None]
    decided = make_decided("a.jsonl", [0.3, 0.4, 0.1, 0.5, 0.0, 0.1, 0.2, 0.9], rules, labels)
    facts = {"toxic": BehaviorFacts(9, "bad", "lookalike")}
    part = summarise("a.jsonl", decided, rules)
    (behavior,) = merge([part], rules, make_context(rules, behaviors=facts)).behaviors
    found = [(tile.name, tile.value, tile.detail) for tile in behavior_tiles(behavior)]
    assert found[:2] == expected


def test_a_behavior_has_tiles_of_the_labels_that_it_is_given_and_no_others(
    make_rule, make_decided, summarise, make_context
):
    rules = [make_rule()]
    part = summarise("a.jsonl", make_decided("a.jsonl", [0.1, 0.3], rules), rules)
    for facts, names in (
        (BehaviorFacts(9), []),
        (BehaviorFacts(9, "bad"), [("bad dropped", "—", "0 of 0")]),
    ):
        context = make_context(rules, behaviors={"toxic": facts})
        (behavior,) = merge([part], rules, context).behaviors
        found = [(tile.name, tile.value, tile.detail) for tile in behavior_tiles(behavior)]
        assert found[:-4] == names


def test_a_label_that_may_be_among_the_uncounted_ones_is_told_as_unknown(
    make_rule, make_decided, summarise, make_context, monkeypatch
):
    monkeypatch.setattr(groups, "MOST_NAMED", 2)
    rules = [make_rule()]
    labels = {"a.jsonl": ["good"] * 3 + ["fine"] * 2 + ["bad"], "b.jsonl": ["good"] + ["bad"] * 9}
    parts = [
        summarise(shard, make_decided(shard, [0.3] * len(own), rules, own), rules)
        for shard, own in labels.items()
    ]
    unknown = ("—", "not known: there are too many labels to count each")
    for positive, hard_negative, expected in (
        ("good", "bad", [("100 %", "4 of 4"), unknown]),
        ("fine", "never", [unknown, unknown]),
    ):
        facts = {"toxic": BehaviorFacts(9, positive, hard_negative)}
        report = merge(parts, rules, make_context(rules, behaviors=facts))
        found = [(each.value, each.detail) for each in behavior_tiles(report.behaviors[0])]
        assert found[:2] == expected
        assert not any("No sample has the label" in warning for warning in report.warnings)
