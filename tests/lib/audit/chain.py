"""The whole chain of artifacts, made by hand: no model, an encoder's vectors come from a hash.

As in the pipeline, an artifact is published anew only when its recipe has changed, the
distillation set is frozen, and a run takes a minute.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from influcoder_lib import fingerprint
from influcoder_lib.curation.decisions import decide
from influcoder_lib.curation.index import VECTORS, narrow, widen, write_segment
from influcoder_lib.curation.rules import Rule
from influcoder_lib.curation.score_table import (
    QueryVectors,
    for_rules,
    score_table,
    with_percentiles,
)
from influcoder_lib.samples import QUARANTINE_SCHEMA, SAMPLE_SCHEMA
from influcoder_lib.store import Manifest, Recipe, Store
from influcoder_lib.vectors import unit_rows

WIDTH = 8
UNTRAINED = "e0" * 16
TEACHER = {
    "dtype": "float32",
    "window": 64,
    "adapter": {"source": "fresh", "rank": 2, "seed": 0},
    "sketch": {"dimensions": 128, "seed": 0},
}

Row = tuple[str, str, str | None]


def unit_vectors(ids: Sequence[str], encoder: str) -> np.ndarray:
    """What an encoder makes of samples, (N, WIDTH) float32: any unit vectors, always the same, as
    they are stored."""
    seeds = [int(fingerprint.of_text(each, encoder)[:8], 16) for each in ids]
    drawn = [np.random.default_rng(seed).standard_normal(WIDTH) for seed in seeds]
    vectors = np.array(drawn, dtype=np.float32).reshape(-1, WIDTH)
    return widen(narrow(unit_rows(vectors)))


def rows_of(name: str, count: int = 12) -> list[Row]:
    """Samples that no other name has; every third has no label."""
    return [
        (f"{name} asks {i}", f"{name} says {i}", ("bad", "good", None)[i % 3]) for i in range(count)
    ]


def ids_of(rows: Sequence[Row]) -> list[str]:
    return [fingerprint.sample_id(prompt, response) for prompt, response, _ in rows]


def table_of(rows: Sequence[Row], file: str) -> pl.DataFrame:
    """A sample table; its rows are numbered from 2, as if the first raw row had been bad."""
    values = [
        (identity, *row, None, file, number)
        for number, (identity, row) in enumerate(zip(ids_of(rows), rows, strict=True), start=2)
    ]
    return pl.DataFrame(values, schema=SAMPLE_SCHEMA, orient="row")


class Chain:
    """Publishes what the pipeline would, from what is set here when `run` is called.

    `shards` and `queries` hold rows by shard and by behavior; `thresholds` the behaviors' rules;
    `challenger` is the encoder trained last, `champion` the one in use; `redistill` makes the next
    run freeze a new distillation set.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shards: dict[str, list[Row]] = {"a": rows_of("a"), "b": rows_of("b")}
        self.queries: dict[str, list[Row]] = {"rude": rows_of("rude query", 5)}
        self.thresholds = {"rude": 0.4}
        self.challenger = self.champion = "e1" * 16
        self.redistill = True
        self.minute = 0

    @property
    def now(self) -> str:
        """The time at which everything of the current run is made."""
        return f"2026-01-01T00:{self.minute:02d}:00Z"

    def run(self) -> str:
        """Bring everything up to date; returns the run's id."""
        self.minute += 1
        for shard, rows in self.shards.items():
            self._read(shard, rows)
        counts = {name: len(rows) for name, rows in self.queries.items()}
        self._publish(
            "behavior_queries",
            None,
            {"source:queries": fingerprint.of_json(counts)},
            {"queries.parquet": self._query_table()},
            counts,
            {"behaviors": sorted(counts)},
        )
        if self.redistill:
            self._distill()
        self._train()
        for shard in self.shards:
            self._embed(shard)
        self._calibrate()
        for shard in self.shards:
            self._decide(shard)
        return f"run-{self.minute}"

    def filtered(self, shard: str = "a") -> Manifest:
        return self.store.require("filtered_dataset", shard)

    def _read(self, shard: str, rows: Sequence[Row]) -> None:
        file = f"{shard}.jsonl"
        bad = pl.DataFrame(
            [(file, 1, "response", "the response is blank", "")], QUARANTINE_SCHEMA, orient="row"
        )
        self._publish(
            "corpus",
            shard,
            {"source:shard": fingerprint.of_json(rows)},
            {"samples.parquet": table_of(rows, file), "quarantine.parquet": bad},
            {"valid": len(rows), "quarantined": 1, "rows_in": len(rows) + 1, "file": file},
        )

    def _query_table(self) -> pl.DataFrame:
        return pl.concat(
            table_of(rows, f"{name}.jsonl").with_columns(behavior=pl.lit(name))
            for name, rows in self.queries.items()
        )

    def _distill(self) -> None:
        self.redistill = False
        for shard, rows in self.shards.items():
            drawn = table_of(rows, f"{shard}.jsonl").head(4)
            self._publish(
                "gradient_projections",
                shard,
                {f"corpus/{shard}": "", "source:target_model": "f" * 32},
                {"candidates.parquet": drawn},
                {},
                TEACHER,
            )
        inputs = dict.fromkeys((f"gradient_projections/{shard}" for shard in self.shards), "")
        self._publish(
            "distillation_set",
            None,
            {**inputs, "behavior_queries": "", "source:target_model": "f" * 32},
            {"counts.json": sorted(self.shards)},
            {"target_model": "tiny"},
            {**TEACHER, "seed": 0, "validation": 0.2, "test": 0.2},
        )

    def _train(self) -> None:
        source = {"source:base_encoder": "b" * 32}
        self._publish(
            "influence_encoder",
            None,
            {"distillation_set": "", **source},
            {"encoder.json": self.challenger},
            {
                "encoder": self.challenger,
                "untrained": UNTRAINED,
                "version": str(1 + self._published("influence_encoder")),
                "mlflow_run": f"mlflow-{self.challenger[:2]}",
            },
            {"challenger": self.challenger},
        )
        trained = self.store.history("influence_encoder")
        versions = {each.summary["encoder"]: each.summary["version"] for each in trained}
        self._publish(
            "champion_encoder",
            None,
            {"influence_encoder": "", "distillation_set": "", **source},
            {"encoder.json": self.champion},
            {
                "encoder": self.champion,
                "version": versions.get(self.champion),
                "winner": "challenger" if self.champion == self.challenger else "champion",
                "merit_challenger": 0.5,
                "merit_untrained": 0.25,
            },
            {"champion": self.champion},
        )

    def _embed(self, shard: str) -> None:
        ids = ids_of(self.shards[shard])
        self._publish(
            "corpus_embeddings",
            shard,
            {f"corpus/{shard}": "", "champion_encoder": ""},
            {
                VECTORS: unit_vectors(ids, self.champion),
                "ids.parquet": pl.DataFrame({"sample_id": ids}),
            },
            {"encoder": self.champion},
        )

    def _calibrate(self) -> None:
        table = self._query_table()
        vectors = unit_vectors(table["sample_id"].to_list(), self.champion)
        self._publish(
            "query_embeddings",
            None,
            {"behavior_queries": "", "champion_encoder": ""},
            {"queries.parquet": table, "queries.npy": vectors},
            {"encoder": self.champion},
        )
        self._publish(
            "calibration_scores",
            None,
            {"champion_encoder": "", "query_embeddings": "", "distillation_set": ""},
            {"candidates.parquet": self._scored(ids_of(rows_of("held back", 20)))},
            {},
        )
        self._publish(
            "decision_rule",
            None,
            {"calibration_scores": ""},
            {"rules.json": [rule.to_dict() for rule in self.rules()]},
            {},
            {"thresholds": dict(self.thresholds)},
        )

    def _decide(self, shard: str) -> None:
        calibration = self._scored(ids_of(rows_of("held back", 20)))
        scored = with_percentiles(
            self._scored(ids_of(self.shards[shard])), calibration, list(self.queries)
        ).with_columns(encoder=pl.lit(self.champion))
        inputs = {f"corpus_embeddings/{shard}": "", "query_embeddings": ""}
        self._publish(
            "influence_scores",
            shard,
            {**inputs, "calibration_scores": ""},
            {"scores.parquet": scored},
            {"encoder": self.champion},
        )
        samples = table_of(self.shards[shard], f"{shard}.jsonl")
        statistics = dict.fromkeys(self.thresholds, "max")
        joined = samples.join(scored, on="sample_id", maintain_order="left")
        decided = decide(for_rules(joined, statistics), self.rules())
        parts = {
            f"{name}.parquet": decided.filter(pl.col("decision") == decision)
            for decision, name in (("keep", "kept"), ("drop", "dropped"))
        }
        self._publish(
            "filtered_dataset",
            shard,
            {f"corpus/{shard}": "", f"influence_scores/{shard}": "", "decision_rule": ""}
            | {
                f"corpus_embeddings/{shard}": "",
                "behavior_queries": "",
                "source:overrides": "none",
            },
            parts,
            {name.removesuffix(".parquet"): len(part) for name, part in parts.items()},
        )

    def rules(self) -> list[Rule]:
        """The decision rules, one a behavior: `threshold` on max."""
        return [
            Rule(name, "unwanted", "threshold", value, "max", float(np.float32(value)), 20, 0)
            for name, value in self.thresholds.items()
        ]

    def _scored(self, ids: Sequence[str]) -> pl.DataFrame:
        queries = {
            name: QueryVectors(ids_of(rows), unit_vectors(ids_of(rows), self.champion))
            for name, rows in self.queries.items()
        }
        return score_table(ids, unit_vectors(ids, self.champion), queries)

    def _published(self, asset: str) -> int:
        return len(self.store.history(asset))

    def _publish(
        self,
        asset: str,
        shard: str | None,
        inputs: Mapping[str, str],
        files: Mapping[str, Any],
        summary: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish unless nothing has changed; inputs without a fingerprint are looked up."""
        found = {name: content or self._current(name) for name, content in inputs.items()}
        recipe = Recipe(found, dict(settings or {}), "2" if asset == "decision_rule" else "1")
        before = self.store.current(asset, shard)
        if before is not None and before.recipe.fingerprint == recipe.fingerprint:
            return
        with self.store.publish(asset, shard, recipe, f"run-{self.minute}") as draft:
            for name, value in files.items():
                _write(draft.folder / name, value)
            draft.rows = max(map(len, files.values()))
            draft.summary |= summary

    def _current(self, label: str) -> str:
        asset, _, shard = label.partition("/")
        return self.store.require(asset, shard or None).fingerprint


def _write(path: Path, value: Any) -> None:
    if path.suffix == ".parquet":
        value.write_parquet(path)
    elif path.name == VECTORS:
        write_segment([narrow(value)], path.parent)
    elif path.suffix == ".npy":
        np.save(path, value)
    else:
        path.write_text(json.dumps(value))
