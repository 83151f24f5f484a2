"""A store with filtered shards, and all that they are traced back to, made by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from influcoder_lib import fingerprint
from influcoder_lib.curation.decisions import DECISION_SCHEMA
from influcoder_lib.curation.rules import Rule
from influcoder_lib.samples import SAMPLE_SCHEMA
from influcoder_lib.store import Manifest, Recipe, Store

FIRST, SECOND = "1" * 32, "2" * 32
"""Fingerprints of two encoders."""

_TEACHER = {"dtype": "float32", "window": 64, "adapter": {"rank": 2}, "sketch": {"dimensions": 128}}


@dataclass(frozen=True)
class Text:
    """A sample to be, and whether it is dropped."""

    prompt: str
    response: str
    label: str | None = None
    source: str | None = None
    dropped: bool = False

    @property
    def sample_id(self) -> str:
        return fingerprint.sample_id(self.prompt, self.response)


@dataclass
class Stored:
    """Publishes artifacts as the pipeline would; each shard with the rule and encoder of then."""

    store: Store
    threshold: float = 0.25
    encoder: str = FIRST
    version: int = field(default=0)

    def judge(self, encoder: str = FIRST, target_model: str = "models/target") -> None:
        """Queries, distillation set, a trained encoder that is in use, its comparison, a rule."""
        self.encoder, self.version = encoder, self.version + 1
        self.query(3)
        self._publish(
            "distillation_set",
            None,
            {"behavior_queries": "", "source:target_model": "f" * 32},
            {"target_model": target_model},
            _TEACHER,
        )
        trained = {"encoder": encoder, "version": str(self.version), "mlflow_run": "a run"}
        base = {"source:base_encoder": "b" * 32}
        self._publish("influence_encoder", None, {"distillation_set": "", **base}, trained)
        fidelity = {"per_query": 0.25, "aggregated": 0.5, "winner": "challenger"}
        self._publish(
            "champion_encoder",
            None,
            {"influence_encoder": "", "distillation_set": "", **base},
            trained | fidelity,
        )
        headline = {"headline": "It loses 1 of 2 comparisons."}
        self._publish("encoder_comparison", None, {"influence_encoder": ""}, headline)
        self.rule(self.threshold)

    def query(self, count: int) -> None:
        """So many queries; shards filtered before keep those of then."""
        self._publish("behavior_queries", None, {}, {"rude": count}, {"behaviors": ["rude"]})

    def rule(self, threshold: float) -> None:
        """A rule with another threshold; shards filtered before keep the one before."""
        self.threshold = threshold
        rule = Rule("rude", "unwanted", "fraction", 0.1, "max", threshold, 100, 0)
        self._publish("decision_rule", None, {}, {}, files={"rules.json": [rule.to_dict()]})

    def shard(self, name: str, texts: Sequence[Text], quarantined: int = 0) -> Manifest:
        """A shard, from its raw file to its decisions."""
        raw = {"source:shard": fingerprint.of_text("raw", name)}
        counts = {"file": f"Raw/{name}", "rows_in": len(texts) + quarantined}
        self._publish("corpus", name, raw, counts)
        inputs = {f"corpus/{name}": "", "champion_encoder": ""}
        self._publish("corpus_embeddings", name, inputs, {})
        inputs = {f"corpus_embeddings/{name}": ""}
        self._publish("influence_scores", name, inputs, {"encoder": self.encoder})
        kept, dropped = (self._table(name, texts, part) for part in (False, True))
        sides = {"kept": len(kept), "dropped": len(dropped), "quarantined": quarantined}
        return self._publish(
            "filtered_dataset",
            name,
            {
                f"corpus/{name}": "",
                f"corpus_embeddings/{name}": "",
                f"influence_scores/{name}": "",
                "decision_rule": "",
                "behavior_queries": "",
            },
            counts | sides,
            files={"kept.parquet": kept, "dropped.parquet": dropped},
        )

    def rows(self, name: str, part: str) -> list[dict[str, Any]]:
        """The kept or dropped rows of a shard as they are stored."""
        manifest = self.store.require("filtered_dataset", name)
        return pl.read_parquet(self.store.path(manifest, f"{part}.parquet")).to_dicts()

    def _table(self, name: str, texts: Sequence[Text], dropped: bool) -> pl.DataFrame:
        """Decided rows: samples, a score that only this behavior has, decision and encoder."""
        rows = [
            (
                *(each.sample_id, each.prompt, each.response, each.label, each.source, name, row),
                *(0.3, *self._decision(each), self.encoder),
            )
            for row, each in enumerate(texts, 1)
            if each.dropped == dropped
        ]
        schema = {**SAMPLE_SCHEMA, "rude_max": pl.Float32, **DECISION_SCHEMA, "encoder": pl.String}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def _decision(self, text: Text) -> tuple[Any, ...]:
        if not text.dropped:
            return "keep", "no unwanted behavior is above its threshold", *[None] * 6
        rule = "unwanted fraction 0.1 on max"
        return "drop", "rude: too high", "rude", 0.3, 0.9, "c" * 32, rule, self.threshold

    def _publish(
        self,
        asset: str,
        shard: str | None,
        inputs: Mapping[str, str],
        summary: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Publish; an input without a fingerprint has that of the artifact in force."""
        known = {name: content or self._content(name) for name, content in inputs.items()}
        with self.store.publish(asset, shard, Recipe(known, settings or {}, "1"), "run-1") as draft:
            (draft.folder / "made.json").write_text(json.dumps([asset, shard, summary, known]))
            for name, value in (files or {}).items():
                if isinstance(value, pl.DataFrame):
                    value.write_parquet(draft.folder / name)
                else:
                    (draft.folder / name).write_text(json.dumps(value))
            draft.summary |= summary
        return self.store.require(asset, shard)

    def _content(self, name: str) -> str:
        asset, _, shard = name.partition("/")
        return self.store.require(asset, shard or None).fingerprint
