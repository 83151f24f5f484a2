"""What one shard contributes to the report, as a JSON-able dict, and how contributions add up.

The report is made from these dicts only, so no row of a shard is read twice. Layout:

    schema            int, the layout's version
    shard             str, partition key (absent from the sum of several shards)
    rows_in, kept, dropped, quarantined    int; rows_in = kept + dropped + quarantined
    funnel            [{label, source, kept, dropped}]             label and source may be null
    drop_reasons      [{rule, behavior, rows}]                     why the dropped were dropped
    quarantine        {reason: rows}
    truncated         {teacher, encoder, teacher_measured}         rows
    behaviors         {behavior: {
        rule                 the decision rule, as a dict
        rows                 scored samples
        lowest, highest      float, null without rows
        histogram            [{label, beyond, counts}]   one count for each bin of BIN_EDGES;
                             `beyond` is the exact number of samples past the threshold
        top                  the TOP highest samples, highest first
        above, below         the NEAR samples either side of the cut, nearest first }}

"Past the threshold" means score > threshold for an unwanted behavior and score >= threshold for a
wanted one, whatever a reviewer or another rule then decided. A listed sample holds sample_id,
file, row, label, decision, reason, score, percentile, prompt, response (excerpts) and best_query
{sample_id, prompt, response}.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from influcoder_lib.curation.decisions import Rule
from influcoder_lib.errors import DataError, StoreError

SCHEMA = 1
TOP = 20
NEAR = 10
EXCERPT = 600
BIN_EDGES = (np.arange(101) - 50) / 50
"""Edges (101,) of the score bins, step 0.02; each bin holds its lower edge, the last also 1."""

_ROUNDING = 1e-5
"""How far the float32 cosine of two unit vectors may lie outside [-1, 1]."""

_COUNTS = ("rows_in", "kept", "dropped", "quarantined")
_TRUNCATED = ("teacher", "encoder", "teacher_measured")
_TIE_BREAK = ("score", "sample_id", "file", "row")

Json = dict[str, Any]


def shard_aggregates(
    shard: str,
    decided: pl.DataFrame,
    rules: Sequence[Rule],
    quarantined: Mapping[str, int],
    truncated: Mapping[str, int],
    query_texts: Mapping[str, Mapping[str, str]],
    *,
    rows_in: int,
) -> Json:
    """Summarise one shard's decisions in the layout above.

    Args:
        shard: the shard's partition key.
        decided: one row a valid sample: the output of `decisions.decide` with the columns prompt,
            response, label, source, file and row of its samples.
        rules: the decision rules that were applied, one a behavior.
        quarantined: rows in quarantine by reason.
        truncated: rows cut for the "teacher" and for the "encoder"; "teacher_measured" is how
            many rows the first was counted on.
        query_texts: "prompt" and "response" of every query, by sample_id.
        rows_in: rows that the reader met in the raw file, counted on its own.

    Raises:
        DataError: the counts do not add up, or a score is no cosine.
        StoreError: a best query is not among `query_texts`.
    """
    decisions = Counter(decided["decision"].to_list())
    return {
        "schema": SCHEMA,
        "shard": shard,
        **_counts(shard, decisions, sum(quarantined.values()), rows_in),
        "funnel": _funnel(decided),
        "drop_reasons": _drop_reasons(decided),
        "quarantine": dict(sorted(quarantined.items())),
        "truncated": {name: int(truncated[name]) for name in _TRUNCATED},
        "behaviors": {
            rule.behavior: _behavior(shard, decided, rule, query_texts) for rule in rules
        },
    }


def combine(aggregates: Sequence[Json], rules: Sequence[Rule]) -> Json:
    """Add up the aggregates of several shards: what one shard holding all rows would give.

    Raises:
        StoreError: an aggregate has another layout or was made with other rules, or a shard
            is there twice.
    """
    _check_combinable(aggregates, rules)
    listed = [part["behaviors"] for part in aggregates]
    return {
        "schema": SCHEMA,
        **{name: sum(part[name] for part in aggregates) for name in _COUNTS},
        "funnel": _add_rows(
            (row for part in aggregates for row in part["funnel"]),
            keys=("label", "source"),
            values=("kept", "dropped"),
        ),
        "drop_reasons": _add_rows(
            (row for part in aggregates for row in part["drop_reasons"]),
            keys=("rule", "behavior"),
            values=("rows",),
        ),
        "quarantine": _add_counts(part["quarantine"] for part in aggregates),
        "truncated": {
            name: sum(part["truncated"][name] for part in aggregates) for name in _TRUNCATED
        },
        "behaviors": {
            rule.behavior: _combine_behavior(rule, [shard[rule.behavior] for shard in listed])
            for rule in rules
        },
    }


def _counts(shard: str, decisions: Counter[Any], quarantined: int, rows_in: int) -> Json:
    kept, dropped = decisions["keep"], decisions["drop"]
    undecided = decisions.total() - kept - dropped
    if undecided or rows_in != kept + dropped + quarantined:
        raise DataError(
            f"The rows of shard {shard} do not add up: {rows_in} came in, {kept} were kept, "
            f"{dropped} dropped, {quarantined} quarantined, {undecided} have no decision.",
            where=f"shard {shard}",
            allowed="rows in = kept + dropped + quarantined",
            fix="Materialise corpus, influence_scores and filtered_dataset of this shard again.",
        )
    return {"rows_in": rows_in, "kept": kept, "dropped": dropped, "quarantined": quarantined}


def _funnel(decided: pl.DataFrame) -> list[Json]:
    rows = decided.select(
        "label",
        "source",
        kept=(pl.col("decision") == "keep").cast(pl.Int64),
        dropped=(pl.col("decision") == "drop").cast(pl.Int64),
    )
    groups = rows.group_by("label", "source").agg(pl.col("kept").sum(), pl.col("dropped").sum())
    return _add_rows(groups.to_dicts(), keys=("label", "source"), values=("kept", "dropped"))


def _drop_reasons(decided: pl.DataFrame) -> list[Json]:
    dropped = decided.filter(pl.col("decision") == "drop")
    groups = dropped.group_by("rule", "behavior").agg(rows=pl.len().cast(pl.Int64))
    return _add_rows(groups.to_dicts(), keys=("rule", "behavior"), values=("rows",))


def _behavior(
    shard: str,
    decided: pl.DataFrame,
    rule: Rule,
    query_texts: Mapping[str, Mapping[str, str]],
) -> Json:
    own = _own_columns(decided, rule)
    scores = own["score"].to_numpy().astype(np.float64)
    _check_scores(shard, rule, scores)
    parts = {
        "top": own.sort(*_TIE_BREAK, descending=[True, False, False, False]).head(TOP),
        "above": own.filter(pl.col("beyond")).sort(*_TIE_BREAK).head(NEAR),
        "below": own.filter(~pl.col("beyond"))
        .sort(*_TIE_BREAK, descending=[True, False, False, False])
        .head(NEAR),
    }
    return {
        "rule": rule.to_dict(),
        "rows": own.height,
        "lowest": float(scores.min()) if own.height else None,
        "highest": float(scores.max()) if own.height else None,
        "histogram": _histogram(own),
        **{
            name: [_listed(shard, row, query_texts) for row in part.iter_rows(named=True)]
            for name, part in parts.items()
        },
    }


def _own_columns(decided: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    # 32-bit floats on both sides, as `decide` compares them.
    score = pl.col(f"{rule.behavior}_{rule.statistic}").cast(pl.Float32)
    threshold = pl.lit(rule.threshold, dtype=pl.Float32)
    beyond = score > threshold if rule.kind == "unwanted" else score >= threshold
    return decided.select(
        "sample_id",
        "file",
        "row",
        "label",
        "decision",
        "reason",
        "prompt",
        "response",
        score=score,
        percentile=pl.col(f"{rule.behavior}_percentile"),
        best_query=pl.col(f"{rule.behavior}_best_query"),
        beyond=beyond,
    )


def _check_scores(shard: str, rule: Rule, scores: np.ndarray) -> None:
    impossible = ~(np.abs(scores) <= 1 + _ROUNDING)
    if impossible.any():
        raise DataError(
            f"{int(impossible.sum())} scores of behavior {rule.behavior} in shard {shard} are no "
            f"cosines; the first is {scores[impossible][0]}.",
            where=f"shard {shard}, column {rule.behavior}_{rule.statistic}",
            allowed="finite numbers from -1 to 1",
            fix="Check that the encoder's vectors are finite and of unit length.",
        )


def _histogram(own: pl.DataFrame) -> list[Json]:
    rows = []
    for label in sorted(own["label"].unique().to_list(), key=_null_last):
        samples = own.filter(pl.col("label").eq_missing(pl.lit(label, dtype=pl.String)))
        # Rounding may carry the cosine of equal vectors past 1; the end bins hold it.
        scores = samples["score"].to_numpy().astype(np.float64).clip(-1, 1)
        counts = np.histogram(scores, bins=BIN_EDGES)[0]
        rows.append(
            {"label": label, "beyond": int(samples["beyond"].sum()), "counts": counts.tolist()}
        )
    return rows


def _listed(shard: str, row: Json, query_texts: Mapping[str, Mapping[str, str]]) -> Json:
    query = row["best_query"]
    if query not in query_texts:
        raise StoreError(
            f"Sample {row['sample_id']} has the best query {query}, which is no query any more.",
            where=f"shard {shard}, file {row['file']}, row {row['row']}",
            fix="Materialise influence_scores of this shard again.",
        )
    plain = ("sample_id", "file", "row", "label", "decision", "reason")
    return {
        **{name: row[name] for name in plain},
        "score": float(row["score"]),
        "percentile": float(row["percentile"]),
        "prompt": excerpt(row["prompt"]),
        "response": excerpt(row["response"]),
        "best_query": {
            "sample_id": query,
            "prompt": excerpt(query_texts[query]["prompt"]),
            "response": excerpt(query_texts[query]["response"]),
        },
    }


def excerpt(text: str) -> str:
    """The text, or its first EXCERPT - 1 characters and a … where it is longer than EXCERPT."""
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def _check_combinable(aggregates: Sequence[Json], rules: Sequence[Rule]) -> None:
    asked = {rule.behavior: rule.to_dict() for rule in rules}
    seen: set[str] = set()
    for part in aggregates:
        shard = part["shard"]
        if part["schema"] != SCHEMA:
            problem = f"The report aggregates of shard {shard} have another layout."
        elif {name: found["rule"] for name, found in part["behaviors"].items()} != asked:
            problem = f"Shard {shard} was filtered with other decision rules than the current ones."
        elif shard in seen:
            problem = f"Shard {shard} is in the report twice."
        else:
            seen.add(shard)
            continue
        raise StoreError(
            problem,
            where=f"filtered_dataset, shard {shard}",
            fix="Materialise filtered_dataset of this shard again.",
        )


def _combine_behavior(rule: Rule, parts: Sequence[Json]) -> Json:
    histogram: dict[str | None, tuple[int, np.ndarray]] = {}
    for row in (row for part in parts for row in part["histogram"]):
        beyond, counts = histogram.get(row["label"], (0, np.zeros(len(BIN_EDGES) - 1, int)))
        histogram[row["label"]] = (beyond + row["beyond"], counts + np.array(row["counts"]))
    filled = [part for part in parts if part["rows"]]
    return {
        "rule": rule.to_dict(),
        "rows": sum(part["rows"] for part in parts),
        "lowest": min((part["lowest"] for part in filled), default=None),
        "highest": max((part["highest"] for part in filled), default=None),
        "histogram": [
            {"label": label, "beyond": beyond, "counts": counts.tolist()}
            for label, (beyond, counts) in sorted(
                histogram.items(), key=lambda item: _null_last(item[0])
            )
        ],
        "top": _join(parts, "top", _highest_first)[:TOP],
        "above": _join(parts, "above", _lowest_first)[:NEAR],
        "below": _join(parts, "below", _highest_first)[:NEAR],
    }


def _join(parts: Sequence[Json], name: str, order: Any) -> list[Json]:
    return sorted((sample for part in parts for sample in part[name]), key=order)


def _highest_first(sample: Json) -> tuple[Any, ...]:
    return -sample["score"], sample["sample_id"], sample["file"], sample["row"]


def _lowest_first(sample: Json) -> tuple[Any, ...]:
    return sample["score"], sample["sample_id"], sample["file"], sample["row"]


def _null_last(value: str | None) -> tuple[bool, str]:
    return value is None, value or ""


def _add_rows(rows: Iterable[Json], keys: tuple[str, ...], values: tuple[str, ...]) -> list[Json]:
    """Sum the values of rows with equal keys; sorted by key, nulls last."""
    totals: dict[tuple[str | None, ...], Counter[str]] = {}
    for row in rows:
        total = totals.setdefault(tuple(row[key] for key in keys), Counter())
        total.update({value: row[value] for value in values})
    ordered = sorted(totals.items(), key=lambda item: [_null_last(part) for part in item[0]])
    return [
        {**dict(zip(keys, key, strict=True)), **{value: total[value] for value in values}}
        for key, total in ordered
    ]


def _add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))
