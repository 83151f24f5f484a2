"""A shard's aggregates: counts, histograms, listed samples, and sums over shards."""

import copy
import itertools
import json
import math
from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.report import sums
from influcoder_lib.report.aggregates import excerpt, shard_aggregates
from influcoder_lib.report.groups import add_groups
from influcoder_lib.report.sums import combine

TRUNCATED = {"teacher": 1, "encoder": 2, "teacher_measured": 3}
QUERIES = {f"query-{i}": {"prompt": f"asks {i}", "response": f"answers {i}"} for i in range(3)}

shared_fixtures = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Few distinct values, so that ties and scores on the threshold and on bin edges are common.
some_scores = st.lists(
    st.sampled_from([-1.0, -0.5, -0.02, 0.0, 0.02, 0.24, 0.25, 0.26, 0.5, 0.51, 1.0]), max_size=40
)


def test_counts_add_up(make_rule, make_decided, summarise):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2, 0.3, 0.4], rules, ["x", "x", "y", None])
    part = summarise("a.jsonl", decided, rules, quarantined={"blank": 2, "null": 1})
    counts = [part[name] for name in ("rows_in", "kept", "dropped", "quarantined")]
    assert counts == [7, 2, 2, 3]
    assert part["groups"] == {
        "label": [
            {"name": "x", "kept": 2, "dropped": 0, "partial": False},
            {"name": "y", "kept": 0, "dropped": 1, "partial": False},
            {"name": None, "kept": 0, "dropped": 1, "partial": False},
        ],
        "source": [{"name": None, "kept": 2, "dropped": 2, "partial": False}],
        "length": [{"name": "under 100", "kept": 2, "dropped": 2, "partial": False}],
        "script": [{"name": "Latin", "kept": 2, "dropped": 2, "partial": False}],
    }


@pytest.mark.parametrize("rows_in", [5, 7])
def test_rows_that_do_not_add_up_are_an_error_that_names_the_shard(
    make_rule, make_decided, summarise, rows_in
):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2, 0.3, 0.4], rules)
    with pytest.raises(DataError, match=rf"shard a\.jsonl do not add up: {rows_in} came in"):
        summarise("a.jsonl", decided, rules, rows_in=rows_in)


def test_a_sample_without_a_decision_is_an_error(make_rule, make_decided, summarise):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2], rules)
    undecided = decided.with_columns(decision=pl.Series(["keep", None]))
    with pytest.raises(DataError, match="1 have no decision"):
        # The total agrees with the decided and quarantined rows, and yet one sample is in neither.
        summarise("a.jsonl", undecided, rules, rows_in=3)


@pytest.mark.parametrize("score", [math.nan, math.inf, 1.01, -1.5])
def test_a_score_that_is_no_cosine_is_an_error(make_rule, make_decided, summarise, score):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1, 0.2], rules)
    broken = decided.with_columns(toxic_max=pl.Series([0.1, score], dtype=pl.Float32))
    with pytest.raises(DataError, match=r"shard a\.jsonl are no cosines"):
        summarise("a.jsonl", broken, rules)


def test_a_cosine_that_rounding_carried_past_one_is_in_the_last_bin(
    make_rule, make_decided, summarise
):
    rules = [make_rule()]
    part = summarise("a.jsonl", make_decided("a.jsonl", [1.0000002], rules), rules)
    assert part["behaviors"]["toxic"]["histogram"][0]["counts"][-1] == 1


def test_a_vanished_best_query_is_an_error(make_rule, make_decided, summarise):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1], rules)
    with pytest.raises(StoreError, match="best query query-0, which is no query"):
        summarise("a.jsonl", decided, rules, query_texts={})


def test_drop_reasons_tell_rules_reviewer_and_unclaimed_apart(make_rule, make_decided, summarise):
    rules = [
        make_rule("toxic", 0.4),
        make_rule("helpful", 0.1, kind="wanted"),
    ]
    decided = make_decided("a.jsonl", [0.5, 0.45, 0.2, 0.0, 0.3], rules, dropped_by_reviewer=(4,))
    part = summarise("a.jsonl", decided, rules)
    assert part["drop_reasons"] == [
        {"rule": "reviewer", "behavior": None, "rows": 1},
        {"rule": "unwanted fraction 0.2 on max", "behavior": "toxic", "rows": 2},
        {"rule": None, "behavior": None, "rows": 1},
    ]


def test_the_statistic_of_the_rule_is_the_one_summarised(make_rule, make_decided, summarise):
    rules = [make_rule(statistic="mean")]
    decided = make_decided("a.jsonl", [0.1, 0.2], rules)
    other = decided.with_columns(toxic_max=pl.lit(0.9, dtype=pl.Float32))
    assert summarise("a.jsonl", other, rules)["behaviors"]["toxic"]["highest"] < 0.21


def test_texts_are_cut_to_600_characters_and_marked():
    assert excerpt("x" * 600) == "x" * 600
    assert excerpt("x" * 601) == "x" * 599 + "…"


@pytest.mark.parametrize("kind", ["unwanted", "wanted"])
@given(scores=some_scores)
@shared_fixtures
def test_a_behavior_matches_a_brute_force_twin(make_rule, make_decided, summarise, kind, scores):
    rules = [make_rule(kind=kind)]
    labels = ["ab"[i % 2] for i in range(len(scores))]
    decided = make_decided("a.jsonl", scores, rules, labels)
    found = summarise("a.jsonl", decided, rules)["behaviors"]["toxic"]

    rows = decided.to_dicts()
    reaches = {"unwanted": lambda s: s > 0.25, "wanted": lambda s: s >= 0.25}[kind]
    past = [row for row in rows if reaches(row["toxic_max"])]
    rest = [row for row in rows if not reaches(row["toxic_max"])]

    def ids(chosen, sign, limit):
        ordered = sorted(chosen, key=lambda row: (sign * row["toxic_max"], row["sample_id"]))
        return [row["sample_id"] for row in ordered][:limit]

    assert [s["sample_id"] for s in found["top"]] == ids(rows, -1, 20)
    assert [s["sample_id"] for s in found["above"]] == ids(past, 1, 10)
    assert [s["sample_id"] for s in found["below"]] == ids(rest, -1, 10)
    assert sum(row["beyond"] for row in found["histogram"]) == len(past)
    for row in found["histogram"]:
        expected = [0] * 100
        for sample in rows:
            if sample["label"] == row["label"]:
                below = [b for b in range(100) if (b - 50) / 50 <= sample["toxic_max"]]
                expected[below[-1]] += 1
        assert row["counts"] == expected


@given(first=some_scores, second=some_scores)
@shared_fixtures
def test_the_sum_of_shards_equals_one_shard_with_all_rows(
    make_rule, make_decided, summarise, first, second
):
    rules = [make_rule("toxic", 0.25), make_rule("rude", 0.0)]
    parts, frames = [], []
    for shard, scores in (("a.jsonl", first), ("b.jsonl", second)):
        labels = [("x", None, shard)[i % 3] for i in range(len(scores))]
        texts = [("x", "Привет", "ταῦτα " * 30)[i % 3] for i in range(len(scores))]
        decided = make_decided(shard, scores, rules, labels, source=shard)
        frames.append(decided.with_columns(response=pl.Series(texts, dtype=pl.String)))
        parts.append(summarise(shard, frames[-1], rules, quarantined={"blank": 1, shard: 2}))
    together = summarise(
        "both",
        pl.concat(frames),
        rules,
        quarantined={"blank": 2, "a.jsonl": 2, "b.jsonl": 2},
        truncated={"teacher": 2, "encoder": 4, "teacher_measured": 6},
    )
    del together["shard"]
    assert combine(parts, rules) == together
    assert combine(parts[::-1], rules) == together


@given(scores=some_scores, cuts=st.sets(st.integers(0, 40)))
@shared_fixtures
def test_blocks_of_a_shard_add_up_to_what_all_its_rows_give_at_once(
    make_rule, make_decided, summarise, scores, cuts
):
    rules = [make_rule("toxic", 0.25), make_rule("helpful", 0.0, kind="wanted")]
    labels = [("x", None, "y")[i % 3] for i in range(len(scores))]
    decided = make_decided("a.jsonl", scores, rules, labels)
    edges = [0, *sorted(cuts), len(scores)]
    blocks = [decided.slice(a, max(b - a, 0)) for a, b in itertools.pairwise(edges)]
    blocks = [block for block in blocks if block.height] or [decided]
    found = shard_aggregates(
        "a.jsonl", blocks, rules, {"blank": 2}, TRUNCATED, QUERIES, rows_in=len(scores) + 2
    )
    whole = summarise("a.jsonl", decided, rules, quarantined={"blank": 2})
    assert json.dumps(found) == json.dumps(whole)


def test_with_a_name_of_its_own_for_every_row_blocks_add_up_in_little_time(
    make_rule, make_decided, monkeypatch
):
    rules = [make_rule()]
    decided = make_decided("a.jsonl", [0.1] * 128, rules)
    decided = decided.with_columns(source=pl.Series(map(str, range(128))))
    seen = Counter()

    def counted(parts):
        seen["rows"] += sum(map(len, parts))
        return add_groups(parts)

    monkeypatch.setattr(sums, "add_groups", counted)
    blocks = decided.iter_slices(1)
    found = shard_aggregates("a.jsonl", blocks, rules, {}, TRUNCATED, QUERIES, rows_in=128)
    assert len(found["groups"]["source"]) == 128
    # Of four groups, one has 128 names; the others have one in each part.
    assert seen["rows"] < 128 * (7 + 1) + 3 * 3 * 128


def test_aggregates_survive_json(make_rule, make_decided, summarise):
    rules = [make_rule()]
    part = summarise("a.jsonl", make_decided("a.jsonl", [0.1, 0.3], rules, ["x", None]), rules)
    assert json.loads(json.dumps(part, allow_nan=False)) == part


def test_aggregates_that_do_not_belong_together_are_refused(make_rule, make_decided, summarise):
    rules = [make_rule()]
    part = summarise("a.jsonl", make_decided("a.jsonl", [0.1, 0.3], rules), rules)
    older = copy.deepcopy(part)
    older["schema"] = 0
    with pytest.raises(StoreError, match=r"a\.jsonl was filtered with other decision rules"):
        combine([part], [make_rule(threshold=0.3)])
    with pytest.raises(StoreError, match=r"a\.jsonl is in the report twice"):
        combine([part, part], rules)
    with pytest.raises(StoreError, match=r"a\.jsonl have another layout"):
        combine([older], rules)
