"""Two reports against each other: what is counted, listed and given as the cause."""

import dataclasses

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from influcoder_lib.errors import StoreError
from influcoder_lib.report import changes
from influcoder_lib.report.changes import (
    LISTED,
    UNEXPLAINED,
    Basis,
    Correlation,
    compare,
    read_decisions,
)
from influcoder_lib.report.wording import change_tiles

SCHEMA = {
    "sample_id": pl.String,
    "file": pl.String,
    "row": pl.Int64,
    "label": pl.String,
    "decision": pl.String,
    "reason": pl.String,
    "rule": pl.String,
    "score": pl.Float32,
    "toxic_mean": pl.Float32,
    "toxic_max": pl.Float32,
}
# One shard: sample to (decision, rule, score). Few samples and scores, so that much coincides.
one_shard = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(
        st.sampled_from(["keep", "drop"]),
        st.sampled_from(["reviewer", "a rule", None]),
        st.sampled_from([-0.5, 0.0, 0.25, 0.5]),
    ),
    max_size=8,
)
whole_corpus = st.dictionaries(st.sampled_from(["one", "two", "three"]), one_shard)


def decisions(samples):
    """The stored decisions of one shard; a keep by no rule has no score, as in `decide`."""
    rows = [
        {
            "sample_id": sample,
            "file": "file",
            "row": ord(sample[0]) + len(sample),
            "label": None,
            "decision": decision,
            "reason": f"{decision} {rule}",
            "rule": rule,
            "score": None if rule is None else score,
            "toxic_mean": -score,
            "toxic_max": score,
        }
        for sample, (decision, rule, score) in samples.items()
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


@pytest.fixture
def make_basis(make_rule):
    """A basis over shards that are given as `decisions` takes them."""

    def build(corpus, **changes):
        def read(shard):
            if corpus[shard] is None:
                raise StoreError("gone")
            return decisions(corpus[shard])

        values = {
            "created": "2026-01-01",
            "encoder": "version 1",
            "rules": [make_rule()],
            "queries": {"toxic": {"q1", "q2"}},
            "shards": {
                shard: repr(samples and sorted(samples.items()))
                for shard, samples in corpus.items()
            },
            "read": read,
        }
        return Basis(**{**values, **changes})

    return build


@given(before=whole_corpus, now=whole_corpus, most=st.integers(2, 20))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_figures_match_a_twin_that_looks_at_every_sample(make_basis, before, now, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "DRAWN", most)
        found = compare(make_basis(before), make_basis(now))
    old, new = (
        {
            (shard, sample): value
            for shard, samples in corpus.items()
            if before.get(shard) != now.get(shard)
            for sample, value in samples.items()
        }
        for corpus in (before, now)
    )
    both = old.keys() & new.keys()
    dropped = [k for k in both if (old[k][0], new[k][0]) == ("keep", "drop")]
    restored = [k for k in both if (old[k][0], new[k][0]) == ("drop", "keep")]
    assert (found.new, found.gone) == (len(new.keys() - both), len(old.keys() - both))
    assert found.new_dropped == sum(new[k][0] == "drop" for k in new.keys() - both)
    assert found.compared == len(both)
    assert (found.newly_dropped, found.restored) == (len(dropped), len(restored))
    assert len(found.listed_dropped) == min(LISTED, len(dropped))
    assert len(found.listed_restored) == min(LISTED, len(restored))
    for listed, moved in ((found.listed_dropped, dropped), (found.listed_restored, restored)):
        assert {each.sample_id for each in listed} <= {sample for _, sample in moved}
    lowest = sorted(both, key=lambda k: (k[1], k[0]))[:most]
    pairs = [(old[k][2], new[k][2]) for k in lowest]
    assert [(each.samples, each.is_draw) for each in found.correlations] == (
        [(len(pairs), len(both) > most)] if len(both) > 1 else []
    )
    if len(both) > 1 and all(len(set(column)) > 1 for column in zip(*pairs, strict=True)):
        expected = spearmanr(*zip(*pairs, strict=True)).statistic
        assert found.correlations[0].spearman == pytest.approx(expected)


def test_only_shards_that_differ_are_read(make_basis):
    same = {"a": ("keep", None, 0.1)}
    before = make_basis({"one": same, "two": {}, "gone": same})
    now = make_basis({"one": same, "two": same, "new": same})
    assert before.differing(now) == ["gone", "new", "two"]
    unreadable = make_basis({"one": None, "two": {}}, shards={"one": "x", "two": "y"})
    compare(unreadable, make_basis({"one": None, "two": same}, shards={"one": "x", "two": "z"}))


def test_the_listed_are_those_with_the_highest_score_now_or_before(make_basis):
    kept = {f"{n:02}": ("keep", "a rule", -n / 100) for n in range(30)}
    dropped = {f"{n:02}": ("drop", "a rule", n / 100) for n in range(30)}
    unscored = {"99": ("drop", None, 0.9)}
    before = make_basis({"one": {**kept, "99": ("keep", None, 0.9)}, "two": dropped})
    now = make_basis({"one": {**dropped, **unscored}, "two": kept})
    found = compare(before, now)
    assert (found.newly_dropped, found.restored) == (31, 30)
    highest = [f"{n:02}" for n in range(29, 19, -1)]
    assert [each.sample_id for each in found.listed_dropped] == highest
    assert [each.sample_id for each in found.listed_restored] == highest
    first = found.listed_restored[0]
    assert (first.reason_before, first.reason_now) == ("drop a rule", "keep a rule")


def test_equal_scores_are_listed_in_the_order_of_their_ids(make_basis):
    kept = dict.fromkeys("gfedcba", ("keep", None, 0.5))
    dropped = dict.fromkeys("gfedcba", ("drop", "a rule", 0.5))
    found = compare(make_basis({"one": kept}), make_basis({"one": dropped}))
    assert "".join(each.sample_id for each in found.listed_dropped) == "abcdefg"


def test_a_shard_whose_earlier_decisions_are_lost_is_named_and_the_rest_compared(make_basis):
    before = make_basis({"lost": None, "one": {"a": ("keep", None, 0.0)}})
    now = make_basis({"lost": {}, "one": {"a": ("drop", "a rule", 0.5)}})
    found = compare(before, now)
    assert found.unread == ("lost",)
    assert found.newly_dropped == 1


def test_decisions_of_now_that_cannot_be_read_are_an_error(make_basis):
    with pytest.raises(StoreError):
        compare(make_basis({"one": {}}), make_basis({"one": None}))


def causes(before, now):
    return compare(before, now).causes


def test_the_causes_name_encoder_rule_threshold_and_queries(make_basis, make_rule):
    one, two = {"one": {}}, {"one": {"a": ("keep", None, 0.0)}}
    before = make_basis(one, rules=[make_rule(), make_rule("rude"), make_rule("shy")])
    now = make_basis(
        two,
        encoder="version 2",
        rules=[make_rule(threshold=0.25000003), make_rule("rude", value=0.3), make_rule("loud")],
        queries={"toxic": {"q2", "q3", "q4"}, "loud": {"q1"}},
    )
    assert causes(before, now) == (
        "Encoder in use: version 1 → version 2.",
        "Threshold of toxic: 0.25000000 → 0.25000003.",
        "Rule of rude: unwanted fraction 0.2 on max → unwanted fraction 0.3 on max.",
        "Behavior loud is new: unwanted fraction 0.2 on max.",
        "Behavior shy is gone.",
        "Queries of toxic: 2 added, 1 removed.",
        "Shards with other samples: one.",
    )


def test_the_causes_name_the_shards(make_basis):
    some, more = {"a": ("keep", None, 0.0)}, {"b": ("keep", None, 0.0)}
    before = make_basis({"edited": some, "gone": some, "decided": some})
    now = make_basis({"edited": more, "new": some, "decided": {"a": ("drop", None, 0.0)}})
    assert causes(before, now) == (
        "New shards: new.",
        "Shards that are gone: gone.",
        "Shards with other samples: edited.",
    )


def test_the_causes_count_what_the_reviewer_decided(make_basis):
    before = {"a": "keep", "b": "keep", "c": "keep", "d": "drop", "e": "drop", "f": "drop"}
    by = {"a": None, "b": None, "c": "reviewer", "d": "reviewer", "e": "reviewer", "f": "reviewer"}
    after = {"a": "drop", "b": "keep", "c": "drop", "d": "keep", "e": "drop", "f": "drop"}
    then = {"a": "reviewer", "b": "reviewer", "c": "reviewer", "d": None, "e": "reviewer"}
    old = {"one": {sample: (before[sample], by[sample], 0.0) for sample in before}}
    new = {"one": {sample: (after[sample], then.get(sample), 0.0) for sample in after}}
    assert causes(make_basis(old), make_basis(new)) == (
        "Reviewer's list: 2 new, 2 withdrawn, 1 turned round.",
    )


def test_a_difference_that_has_none_of_these_causes_says_so(make_basis):
    one = {"one": {"a": ("keep", None, 0.0)}}
    other = make_basis(one, shards={"one": "made by other code"})
    assert causes(make_basis(one), other) == (UNEXPLAINED,)


def test_what_is_not_on_record_is_no_cause(make_basis):
    unknown = make_basis({"one": {}}, encoder=None, rules=None, queries=None)
    now = make_basis({"two": {}})
    assert causes(unknown, now) == ("New shards: two.", "Shards that are gone: one.")


@pytest.mark.parametrize(("statistic", "expected"), [("max", -1.0), ("mean", 1.0)])
def test_scores_are_of_the_current_rules_statistic_and_a_new_behavior_has_none_before(
    make_basis, make_rule, statistic, expected
):
    before = make_basis({"one": {"a": ("keep", None, 0.1), "b": ("keep", None, 0.2)}})
    after = {"one": {"a": ("keep", None, 0.3), "b": ("keep", None, 0.2)}}

    def read(shard):
        mean = pl.Series([0.6, 0.5], dtype=pl.Float32)
        return decisions(after[shard]).with_columns(toxic_mean=mean, rude_max=pl.lit(0.1))

    rules = [make_rule(statistic=statistic), make_rule("rude")]
    (found,) = compare(before, make_basis(after, rules=rules, read=read)).correlations
    assert (found.behavior, found.spearman) == ("toxic", pytest.approx(expected))


def test_stored_decisions_are_read_without_texts(tmp_path):
    frame = decisions({"a": ("keep", None, 0.1), "b": ("drop", "a rule", 0.2)})
    frame = frame.with_columns(prompt=pl.lit("long"), toxic_max_percentile=pl.lit(0.5))
    paths = []
    for decision in ("keep", "drop"):
        paths.append(tmp_path / f"{decision}.parquet")
        frame.filter(pl.col("decision") == decision).write_parquet(paths[-1])
    assert read_decisions(paths).columns == list(SCHEMA)
    assert read_decisions(paths)["sample_id"].to_list() == ["a", "b"]
    paths = [paths[0], tmp_path / "none.parquet"]
    frame.clear().write_parquet(paths[1])
    assert read_decisions(paths).height == 1


def test_scores_of_no_more_than_twice_the_draw_are_held(make_basis, monkeypatch):
    monkeypatch.setattr(changes, "DRAWN", 3)
    held = []
    lowest = changes._Draw.lowest

    def seen(draw):
        held.append(sum(map(len, draw._held)))
        return lowest(draw)

    monkeypatch.setattr(changes._Draw, "lowest", seen)
    before = {str(n): {f"{m}{n}": ("keep", None, 0.1) for m in "abc"} for n in range(9)}
    after = {str(n): {f"{m}{n}": ("keep", None, n / 10) for m in "abc"} for n in range(9)}
    (found,) = compare(make_basis(before), make_basis(after)).correlations
    assert max(held) <= 3 * 3
    assert (found.samples, found.is_draw) == (3, True)


@pytest.mark.parametrize(("is_draw", "said"), [(True, "a draw of 7 samples"), (False, "7 samples")])
def test_a_correlation_of_a_draw_is_told_as_one(make_basis, is_draw, said):
    found = compare(make_basis({}), make_basis({}))
    each = Correlation("toxic", 0.5, 7, is_draw)
    tile = change_tiles(dataclasses.replace(found, correlations=(each,)))[-1]
    assert (tile.value, tile.detail) == ("0.500", f"scores before and now, {said}")
