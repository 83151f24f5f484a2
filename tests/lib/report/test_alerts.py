"""The report's warnings: each one when, and only when, there is something to warn of."""

import pytest

from influcoder_lib.report import alerts
from influcoder_lib.report.merging import BehaviorFacts
from influcoder_lib.report.standing import DistillationGap, MeasuredShard
from tests.lib.report.conftest import QUERIES
from tests.lib.report.parts import merge


@pytest.fixture
def warn(make_rule, make_decided, summarise, make_context):
    """The warnings of a report on one shard with these scores."""

    def warnings(scores, context=None, **rule):
        rules = [make_rule(**rule)]
        part = summarise("a.jsonl", make_decided("a.jsonl", scores, rules), rules)
        return merge([part], rules, make_context(rules, **(context or {}))).warnings

    return warnings


@pytest.mark.parametrize(
    ("scores", "warning"),
    [
        ([0.1, 0.2], "Nothing was dropped: the filtered dataset is the whole corpus."),
        (
            [0.3, 0.4, 0.1],
            (
                "66.7 % of the corpus was dropped, 2 of 3 samples: more than the 50.0 % that "
                "report.most_dropped allows."
            ),
        ),
        ([0.3, 0.3], "All 2 samples have the same score for behavior toxic (0.3000)"),
        ([], "There is no valid sample to report on."),
        ([0.1, 0.3], "was asked to drop 20.0 % and reaches 50.0 % of the corpus"),
    ],
)
def test_what_came_of_it_is_warned_of(warn, scores, warning):
    assert any(warning in text for text in warn(scores))


def test_where_all_is_well_there_is_no_warning(warn):
    assert warn([0.1, 0.2] * 4 + [0.3]) == ()


@pytest.mark.parametrize(("most", "warned"), [(0.25, True), (0.3, False), (1.0, False)])
def test_the_users_own_bound_decides_how_much_is_too_much(warn, most, warned):
    found = warn([0.1, 0.2, 0.15, 0.22, 0.21, 0.3, 0.3] * 2, {"most_dropped": most})
    assert any("28.6 % of the corpus was dropped" in text for text in found) == warned


def test_entries_of_the_reviewers_list_without_a_sample_are_counted_and_some_are_named(warn):
    (warning,) = warn([0.1] * 4 + [0.3], {"unmatched": [f"{i}" * 32 for i in range(6)]})
    assert warning.startswith(
        "The reviewer's list has 6 entries without effect, as no sample of the corpus has this id: "
        f"{'0' * 32}, "
    )
    assert f"{'4' * 32} and 1 more." in warning


def test_queries_that_are_samples_of_the_corpus_are_counted_and_some_are_named(
    make_rule, make_decided, summarise, make_context
):
    rules = [make_rule()]
    parts = []
    for shard in ("a.jsonl", "b.jsonl"):
        decided = make_decided(shard, [0.1] * 4 + [0.3], rules)
        queries = dict.fromkeys(decided["sample_id"].head(3), QUERIES["query-0"])
        parts.append(summarise(shard, decided, rules, query_texts=QUERIES | queries))
    (warning,) = merge(parts, rules, make_context(rules)).warnings
    assert warning.startswith("6 queries are samples of the corpus, so that each finds itself: ")
    assert warning.endswith(" and 1 more. Take them out of the query files, or out of the corpus.")


def test_shards_without_a_single_sample_are_named(make_rule, make_decided, summarise, make_context):
    rules = [make_rule()]
    scores = {"a.jsonl": [0.1] * 4 + [0.3], "b.jsonl": [], "c.jsonl": []}
    parts = [
        summarise(shard, make_decided(shard, own, rules), rules) for shard, own in scores.items()
    ]
    (warning,) = merge(parts, rules, make_context(rules)).warnings
    assert warning.startswith("All rows of 2 shards are in quarantine: b.jsonl, c.jsonl. See why: ")


def test_absent_shards_are_counted_and_some_are_named(warn):
    shards = ["a.jsonl", *(f"b{i}.csv" for i in range(7))]
    (warning,) = warn([0.1] * 4 + [0.3], {"expected_shards": shards})
    assert warning == (
        "The report lacks 7 of the corpus's shards: b0.csv, b1.csv, b2.csv, b3.csv, b4.csv "
        "and 2 more."
    )


def test_no_shard_at_all_is_a_report_with_a_warning(make_rule, make_context):
    rules = [make_rule()]
    report = merge([], rules, make_context(rules, expected_shards=["a.jsonl"]))
    assert report.total.rows_in == 0
    assert any("lacks 1 of the corpus's shards: a.jsonl" in text for text in report.warnings)


@pytest.mark.parametrize(("queries", "said"), [(1, "only 1 query:"), (4, "only 4 queries:")])
def test_a_behavior_with_few_queries_is_warned_of(warn, queries, said):
    facts = {"behaviors": {"toxic": BehaviorFacts(queries)}}
    (warning,) = warn([0.1] * 4 + [0.3], facts)
    assert said in warning
    enough = {"behaviors": {"toxic": BehaviorFacts(alerts.FEW_QUERIES)}}
    assert warn([0.1] * 4 + [0.3], enough) == ()


def test_a_label_that_no_sample_has_is_warned_of(warn):
    facts = {"behaviors": {"toxic": BehaviorFacts(9, "usnafe")}}
    (warning,) = warn([0.1] * 4 + [0.3], facts)
    assert warning == "No sample has the label usnafe that behavior toxic is measured on."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        (
            {"latest": "3", "latest_merit": 0.31},
            [
                (
                    "The latest encoder, version 3, was not promoted: 0.310 on the test split, the "
                    "one in use (version 2) 0.350."
                )
            ],
        ),
        (
            {"in_use": None, "merit": 0.1, "latest_merit": 0.05},
            [
                (
                    "The latest encoder, version 2, was not promoted: 0.050 on the test split, the "
                    "one in use (the untrained encoder) 0.100."
                )
            ],
        ),
        (
            {"latest": "3", "merit": None, "latest_merit": 0.5},
            ["The latest encoder, version 3, is not the one in use, which is version 2."],
        ),
        (
            {"latest": "3", "latest_merit": 0.45},
            [
                (
                    "The latest encoder, version 3, is not in use by your choice: 0.450 on the "
                    "test split, the one in use (version 2) 0.350."
                )
            ],
        ),
        (
            {"merit_untrained": 0.4},
            [
                (
                    "The encoder in use follows the model worse (0.350 on the test split) than the "
                    "untrained one (0.400). Put that in use: influcoder rollback --to untrained."
                )
            ],
        ),
        (
            {"gap": DistillationGap(2, 0, 0, 9, 3, ("rude", "toxic"))},
            [
                (
                    "The encoder has learnt from no query of rude, toxic, which came after its "
                    "distillation set was frozen. Retrain: influcoder redistill."
                )
            ],
        ),
        ({"gap": DistillationGap(5, 2, 1, 9, 3, ())}, []),
    ],
)
def test_an_encoder_that_is_not_the_latest_or_has_not_learnt_a_behavior_is_warned_of(
    make_standing, changes, said
):
    assert list(alerts.of_standing(make_standing(**changes))) == said


def test_shards_on_which_the_encoder_is_weak_or_fails_are_named(make_standing):
    fidelity = tuple(
        MeasuredShard(shard, verdict, 0.1, 0.0, 0.2, 0.3, 5, 48)
        for shard, verdict in (("a", "failed"), ("b", "weak"), ("c", "weak"), ("d", "sound"))
    )
    failed, weak = alerts.of_standing(make_standing(fidelity=fidelity))
    assert failed.startswith("The encoder fails on 1 of 4 shards")
    assert failed.endswith(": a. Retrain: influcoder redistill.")
    assert weak == "The encoder is weak on 2 of 4 shards: b, c."
    sound = make_standing(fidelity=fidelity[3:])
    assert list(alerts.of_standing(sound)) == []
