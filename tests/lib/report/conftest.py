"""Builders of small decided shards, rules and reports."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from influcoder_lib.curation.decisions import Override, Rule, decide
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.report.aggregates import shard_aggregates
from influcoder_lib.report.model import Measured, Report, Table, merge

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
        return shard_aggregates(shard, decided, rules=rules, quarantined=quarantined, **values)

    return build


@pytest.fixture
def make_report(make_rule, make_decided, summarise) -> Callable[..., Report]:
    """A report over two shards of random scores; `hostile` goes wherever data can go."""

    def build(
        hostile: str = "plain",
        behaviors: Sequence[str] = ("toxic",),
        labelled: bool = True,
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
        return merge(
            parts,
            rules,
            [table],
            f"Headline {hostile}",
            {f"encoder {hostile}": hostile},
            "2026-01-02",
            expected_shards=["one.jsonl", "two.jsonl", f"three {hostile}"],
        )

    return build
