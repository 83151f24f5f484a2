"""Decisions: precedence, reasons, and the reviewer's list."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.curation.decisions import DECISION_SCHEMA, Override, decide, read_overrides
from influcoder_lib.curation.rules import Rule, RuleSettings, calibrate
from influcoder_lib.errors import DataError

# Sixteenths end in a 5 at the fourth decimal: exact halves for whoever rounds to three.
GRID = st.integers(-16, 16).map(lambda step: step / 16)


def rule(behavior="toxic", kind="unwanted", threshold=0.305, statistic="max", value=0.05):
    return Rule(behavior, kind, "fraction", value, statistic, threshold, 100, 0)


def table(ids, **behaviors):
    columns = {"sample_id": pl.Series(ids, dtype=pl.String)}
    for name, (scores, percentiles) in behaviors.items():
        columns[f"{name}_mean"] = pl.Series(scores, dtype=pl.Float32)
        columns[f"{name}_max"] = pl.Series(scores, dtype=pl.Float32)
        columns[f"{name}_percentile"] = pl.Series(percentiles, dtype=pl.Float32)
        queries = [f"{name}-query-{n}" for n in range(len(ids))]
        columns[f"{name}_best_query"] = pl.Series(queries, dtype=pl.String)
    return pl.DataFrame(columns)


def test_reasons_are_sentences_for_people():
    scored = table(
        ["a", "b", "c", "d", "e"],
        toxic=([0.412, 0.3051, 0.1, 0.9, 0.1], [0.99, 0.97, 0.2, 1.0, 0.2]),
    )
    listed = [Override("d", "keep", "a quote"), Override("e", "drop", "")]
    decided = decide(scored, [rule()], listed)
    assert decided["reason"].to_list() == [
        "toxic: score 0.412 is above the threshold 0.305 (unwanted fraction 0.05 on max)",
        "toxic: score 0.305100 is above the threshold 0.305000 (unwanted fraction 0.05 on max)",
        "no unwanted behavior is above its threshold",
        "reviewer: always keep (a quote)",
        "reviewer: always drop",
    ]
    assert decided["decision"].to_list() == ["drop", "drop", "keep", "keep", "drop"]
    first = decided.select(list(DECISION_SCHEMA)).row(0, named=True)
    assert first | {"score": 0, "percentile": 0, "reason": ""} == {
        "decision": "drop",
        "reason": "",
        "behavior": "toxic",
        "score": 0,
        "percentile": 0,
        "best_query": "toxic-query-0",
        "rule": "unwanted fraction 0.05 on max",
        "threshold": 0.305,
    }
    assert (first["score"], first["percentile"]) == pytest.approx((0.412, 0.99))
    assert decided.row(2, named=True)["rule"] is None
    assert decided.row(3, named=True)["rule"] == "reviewer"


def test_a_fixed_threshold_is_compared_as_the_float_that_scores_are():
    wish = RuleSettings("toxic", "unwanted", "threshold", 0.3, "max")
    fixed = calibrate(wish, np.zeros(2))
    decided = decide(table(["a"], toxic=([0.3], [1.0])), [fixed])
    assert fixed.threshold == float(np.float32(0.3))
    assert decided["decision"].to_list() == ["keep"]


def test_unwanted_beats_wanted_and_unclaimed_samples_are_dropped():
    rules = [rule("good", "wanted", 0.5), rule("toxic", "unwanted", 0.5)]
    scored = table(
        ["both", "good", "neither", "edge"],
        good=([0.9, 0.9, 0.1, 0.5], [1, 1, 0, 0.5]),
        toxic=([0.9, 0.1, 0.1, 0.5], [0.1, 0, 0, 0.5]),
    )
    decided = decide(scored, rules)
    assert decided["decision"].to_list() == ["drop", "keep", "drop", "keep"]
    assert decided["behavior"].to_list() == ["toxic", "good", None, "good"]
    assert decided["reason"].to_list()[1:3] == [
        "good: score 0.900 reaches the threshold 0.500 (wanted fraction 0.05 on max)",
        "no wanted behavior reaches its threshold",
    ]


def test_without_any_rule_everything_is_kept_except_what_the_reviewer_drops():
    decided = decide(table(["a", "b"]), [], [Override("b", "drop", "x"), Override("z", "drop", "")])
    assert decided["decision"].to_list() == ["keep", "drop"]
    assert decided["reason"].to_list() == ["no rule is set", "reviewer: always drop (x)"]


def test_an_empty_shard_keeps_the_columns_and_their_types():
    decided = decide(table([], toxic=([], [])), [rule()])
    assert len(decided) == 0
    assert {name: decided.schema[name] for name in DECISION_SCHEMA} == DECISION_SCHEMA


def show(number, threshold):
    short, edge = f"{number:z.3f}", f"{threshold:z.3f}"
    return (short, edge) if short != edge else (f"{number:z.6f}", f"{threshold:z.6f}")


def decide_slowly(row, rules, listed):
    for override in listed:
        if override.sample_id == row["sample_id"]:
            note = f" ({override.note})" if override.note else ""
            return override.decision, f"reviewer: always {override.decision}{note}", None
    for kind in ("unwanted", "wanted"):
        winner, best = None, -1.0
        for one in (r for r in rules if r.kind == kind):
            score = row[f"{one.behavior}_{one.statistic}"]
            hit = score > one.threshold if kind == "unwanted" else score >= one.threshold
            if hit and row[f"{one.behavior}_percentile"] > best:
                winner, best = one, row[f"{one.behavior}_percentile"]
        if winner:
            score, edge = show(row[f"{winner.behavior}_{winner.statistic}"], winner.threshold)
            verb = "is above" if kind == "unwanted" else "reaches"
            text = f"{winner.behavior}: score {score} {verb} the threshold {edge} ({winner.label})"
            return "drop" if kind == "unwanted" else "keep", text, winner.behavior
    if any(r.kind == "wanted" for r in rules):
        return "drop", "no wanted behavior reaches its threshold", None
    if rules:
        return "keep", "no unwanted behavior is above its threshold", None
    return "keep", "no rule is set", None


COSINE = GRID | st.floats(-1, 1, width=32)
NAMES = ["a", "b", "{c}"]


@st.composite
def cases(draw):
    size = draw(st.integers(0, 6))
    ids = [f"s{n}" for n in range(size)]
    column = st.lists(COSINE, min_size=size, max_size=size)
    shares = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=size, max_size=size)
    scored = table(ids, **{name: (draw(column), draw(shares)) for name in NAMES})
    kinds, statistics = st.sampled_from(["unwanted", "wanted"]), st.sampled_from(["mean", "max"])
    rules = [
        rule(name, draw(kinds), draw(COSINE), draw(statistics))
        for name in draw(st.permutations(NAMES))[: draw(st.integers(0, 3))]
    ]
    reviewed = draw(st.lists(st.sampled_from([*ids, "elsewhere"]), unique=True, max_size=3))
    verdicts = st.sampled_from(["keep", "drop"])
    return scored, rules, [Override(i, draw(verdicts), draw(st.text(max_size=5))) for i in reviewed]


@given(cases())
@settings(deadline=None)
def test_decisions_equal_a_loop_over_rows(case):
    scored, rules, listed = case
    decided = decide(scored, rules, listed)
    expected = [decide_slowly(row, rules, listed) for row in scored.iter_rows(named=True)]
    assert decided.select("decision", "reason", "behavior").rows() == expected
    assert decided.select(scored.columns).equals(scored)
    for row in decided.filter(pl.col("behavior").is_not_null()).iter_rows(named=True):
        named = next(r for r in rules if r.behavior == row["behavior"])
        assert row["score"] == row[f"{named.behavior}_{named.statistic}"]
        assert row["percentile"] == row[f"{named.behavior}_percentile"]
        assert row["best_query"] == row[f"{named.behavior}_best_query"]
        assert (row["rule"], row["threshold"]) == (named.label, named.threshold)


def test_scores_that_are_missing_or_no_numbers_are_refused():
    scored = table(["a", "b"], toxic=([0.1, float("nan")], [0.5, 0.5]))
    with pytest.raises(DataError, match="1 samples have no finite number as toxic_max"):
        decide(scored, [rule()])
    with pytest.raises(DataError, match="toxic_percentile"):
        decide(table(["a"], toxic=([0.1], [None])), [rule()])
    with pytest.raises(DataError, match="rude_best_query, rude_max, rude_percentile"):
        decide(scored, [rule("rude")])
    with pytest.raises(ValueError, match="already have columns reason"):
        decide(scored.with_columns(reason=pl.lit("")), [])


# The reviewer's list

ID_A, ID_B = "a" * 32, "0123456789abcdef" * 2


def test_the_reviewers_list_is_read_in_order_with_notes(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        f'\ufeffsample_id,decision,note\n{ID_A},drop,"spam, again"\n{ID_B},keep,\n{ID_A},drop,\n',
        encoding="utf-8",
    )
    assert read_overrides(path) == [
        Override(ID_A, "drop", "spam, again"),
        Override(ID_B, "keep", ""),
    ]
    decided = decide(table([ID_A, ID_B]), [], read_overrides(path))
    assert decided["reason"].to_list() == [
        "reviewer: always drop (spam, again)",
        "reviewer: always keep",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "header (empty)"),
        ("sample_id,decision\n", "other columns"),
        (f"sample_id,decision,note\n{ID_A},keep,\nshort,keep,\n", "line 3, field sample_id"),
        (f"sample_id,decision,note\n{ID_A},delete,\n", "line 2, field decision"),
        (f"sample_id,decision,note\n{ID_A},keep\n", "line 2"),
        (f"sample_id,decision,note\n{ID_A},keep,a,b\n", "line 2"),
        (f"sample_id,decision,note\n{ID_A},keep,\n{ID_B},keep,\n{ID_A},drop,\n", "lines 2 and 4"),
        (f"sample_id,decision,note\n\n\n{ID_A},keep,\n\nshort,keep,\n", "line 6, field sample_id"),
        (f"sample_id,decision,note\n\n{ID_A},keep,\n\n{ID_A},drop,\n", "lines 3 and 5"),
        (f'sample_id,decision,note\n{ID_A},keep,"open\n', "cannot be read"),
        (f"sample_id,decision,note\n{ID_A},keep,caf\udce9\n", "cannot be read"),
    ],
)
def test_a_broken_reviewers_list_is_refused_naming_file_and_line(tmp_path, text, told):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        read_overrides(path)
    assert told in str(caught.value)
    assert "list.csv" in str(caught.value)


def test_a_missing_reviewers_list_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv"):
        read_overrides(tmp_path / "gone.csv")


def test_contradictory_overrides_are_refused_without_a_file_too():
    with pytest.raises(DataError, match="both keeps and drops sample a"):
        decide(table(["a"]), [], [Override("a", "keep", ""), Override("a", "drop", "")])
