"""Builders of small decided shards, rules and reports."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from influcoder_lib.curation.decisions import Override, decide
from influcoder_lib.curation.rules import Rule
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.report.aggregates import shard_aggregates
from influcoder_lib.report.changes import Changes, Correlation, MovedSample
from influcoder_lib.report.merging import BehaviorFacts, Context
from influcoder_lib.report.model import Measured, Report, Table
from influcoder_lib.report.standing import DistillationGap, MeasuredShard, Standing
from tests.lib.report.parts import merge

QUERIES = {f"query-{i}": {"prompt": f"asks {i}", "response": f"answers {i}"} for i in range(3)}
SAMPLE_COLUMNS = ("sample_id", "prompt", "response", "label", "source", "file", "row")
TRUNCATED = {"teacher": 1, "encoder": 2, "teacher_measured": 3}


@pytest.fixture
def make_rule() -> Callable[..., Rule]:
    def build(behavior: str = "toxic", threshold: float = 0.25, **changes: object) -> Rule:
        values = {
            "behavior": behavior,
            "kind": "unwanted",
            "method": "fraction",
            "value": 0.2,
            "statistic": "max",
            "threshold": float(np.float32(threshold)),
            "calibration_rows": 50,
            "known_good_rows": 0,
        }
        return Rule.from_dict({**values, **changes})

    return build


@pytest.fixture
def make_decided() -> Callable[..., pl.DataFrame]:
    """Decided samples of one shard; `scores` holds the statistic of every behavior alike."""

    def build(
        shard: str,
        scores: Sequence[float],
        rules: Sequence[Rule],
        labels: Sequence[str | None] | None = None,
        dropped_by_reviewer: Sequence[int] = (),
        text: str = "text",
        source: str | None = None,
    ) -> pl.DataFrame:
        count = len(scores)
        frame = pl.DataFrame(
            {
                "sample_id": [sample_id(shard, str(i)) for i in range(count)],
                "prompt": [f"{text} prompt {i}" for i in range(count)],
                "response": [f"{text} response {i}" for i in range(count)],
                "label": list(labels) if labels is not None else [None] * count,
                "source": [source] * count,
                "file": [shard] * count,
                "row": list(range(1, count + 1)),
            },
            schema=dict.fromkeys(SAMPLE_COLUMNS, pl.String) | {"row": pl.Int64},
        )
        for rule in rules:
            name = rule.behavior
            values = pl.Series(scores, dtype=pl.Float32)
            frame = frame.with_columns(
                values.alias(f"{name}_mean"),
                values.alias(f"{name}_max"),
                pl.Series([f"query-{i % 3}" for i in range(count)], dtype=pl.String).alias(
                    f"{name}_best_query"
                ),
                ((values + 1) / 2).alias(f"{name}_percentile"),
            )
        ids = frame["sample_id"].to_list()
        overrides = [Override(ids[i], "drop", "seen") for i in dropped_by_reviewer]
        return decide(frame, rules, overrides)

    return build


@pytest.fixture
def summarise() -> Callable[..., dict]:
    def build(shard: str, decided: pl.DataFrame, rules: Sequence[Rule], **changes: object) -> dict:
        quarantined = changes.pop("quarantined", {"blank response": 2})
        rows = decided.height + sum(quarantined.values())
        values = {"truncated": TRUNCATED, "query_texts": QUERIES, "rows_in": rows, **changes}
        return shard_aggregates(shard, [decided], rules=rules, quarantined=quarantined, **values)

    return build


@pytest.fixture
def make_standing() -> Callable[..., Standing]:
    """The encoder in use is the latest, and has learnt from everything."""

    def build(**changes: object) -> Standing:
        values = {
            "in_use": "2",
            "merit": 0.35,
            "merit_untrained": 0.1,
            "latest": "2",
            "latest_merit": 0.35,
            "fidelity": (),
            "gap": DistillationGap(2, 0, 0, 9, 0, ()),
        }
        return Standing(**{**values, **changes})

    return build


@pytest.fixture
def make_context(make_standing) -> Callable[..., Context]:
    """A first report in which nothing is to be warned of."""

    def build(rules: Sequence[Rule], **changes: object) -> Context:
        values = {
            "created": "2026-01-02",
            "headline": "Headline",
            "tables": [],
            "versions": {},
            "expected_shards": [],
            "most_dropped": 0.5,
            "behaviors": {rule.behavior: BehaviorFacts(9) for rule in rules},
            "standing": make_standing(),
            "changes": None,
        }
        return Context(**{**values, **changes})

    return build


def make_changes(hostile: str) -> Changes:
    moved = MovedSample("ab" * 16, f"{hostile}.jsonl", 7, hostile, f"kept {hostile}", "dropped")
    return Changes(
        since="2026-01-01",
        causes=(f"Cause {hostile}.",),
        new=4,
        new_dropped=1,
        gone=2,
        compared=70,
        newly_dropped=12,
        restored=1,
        correlations=(Correlation(hostile, 0.987, 70, False),),
        listed_dropped=(moved,),
        listed_restored=(moved,),
        unread=(f"lost {hostile}",),
    )


@pytest.fixture
def make_report(make_rule, make_decided, summarise, make_context, make_standing):
    """A report over two shards of random scores; `hostile` goes wherever data can go."""

    def build(
        hostile: str = "plain",
        behaviors: Sequence[str] = ("toxic",),
        labelled: bool = True,
        first: bool = False,
        threshold: float = 0.25,
        **rule_changes: object,
    ) -> Report:
        rules = [make_rule(name, threshold, **rule_changes) for name in behaviors]
        rng = np.random.default_rng(0)
        parts = []
        for shard in ("one.jsonl", "two.jsonl"):
            scores = rng.uniform(-0.5, 0.5, 40)
            labels = [f"{hostile} {i % 2}" if labelled else None for i in range(40)]
            decided = make_decided(
                shard, scores, rules, labels, (3,), f"SECRET {hostile}", hostile
            ).with_columns(file=pl.lit(f"{hostile}{shard}"))
            query_texts = {
                name: {"prompt": f"SECRET {hostile}", "response": f"SECRET {hostile}"}
                for name in QUERIES
            }
            parts.append(
                summarise(shard, decided, rules, query_texts=query_texts, quarantined={hostile: 1})
            )
        table = Table(
            f"Table {hostile}",
            ["method", f"rho {hostile}", "AUPRC"],
            [[hostile, 0.1, None], ["encoder", Measured(0.5, 0.01), 0.25], ["length", 0.3, 0.75]],
            hostile,
        )
        fidelity = MeasuredShard(f"shard {hostile}", "weak", 0.12, 0.05, None, 0.3, 5, 48)
        context = make_context(
            rules,
            headline=f"Headline {hostile}",
            tables=[table],
            versions={f"encoder {hostile}": hostile},
            expected_shards=["one.jsonl", "two.jsonl", f"three {hostile}"],
            behaviors={
                name: BehaviorFacts(9, f"{hostile} 0", f"missing {hostile}") for name in behaviors
            },
            standing=make_standing(
                fidelity=(fidelity,), gap=DistillationGap(3, 1, 1, 9, 2, (hostile,))
            ),
            changes=None if first else make_changes(hostile),
        )
        return merge(parts, rules, context)

    return build
