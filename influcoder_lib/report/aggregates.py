"""What one shard contributes to the report, in the layout of `layout`.

The report is made from these contributions only, so no row of a shard is read twice.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.report.groups import Json, add_rows, count_groups
from influcoder_lib.report.histograms import count_histograms
from influcoder_lib.report.layout import COUNTS, NEAR, SCHEMA, TOP, TRUNCATED
from influcoder_lib.report.sums import add_up_in_turn

EXCERPT = 600

_ROUNDING = 1e-5
"""How far the float32 cosine of two unit vectors may lie outside [-1, 1]."""

_TIE_BREAK = ("score", "sample_id", "file", "row")


def shard_aggregates(
    shard: str,
    blocks: Iterable[pl.DataFrame],
    rules: Sequence[Rule],
    quarantined: Mapping[str, int],
    truncated: Mapping[str, int],
    query_texts: Mapping[str, Mapping[str, str]],
    *,
    rows_in: int,
) -> Json:
    """Summarise one shard's decisions.

    Args:
        shard: the shard's partition key.
        blocks: at least one block of rows, one row a valid sample: the output of
            `decisions.decide` with the columns prompt, response, label, source, file and row of
            its samples.
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
    parts = (_of_block(shard, decided, rules, query_texts) for decided in blocks)
    whole = add_up_in_turn(parts, rules)
    found = {
        "schema": SCHEMA,
        "shard": shard,
        **whole,
        "rows_in": rows_in,
        "quarantined": sum(quarantined.values()),
        "quarantine": dict(sorted(quarantined.items())),
        "truncated": {name: int(truncated[name]) for name in TRUNCATED},
    }
    _check_counts(found, valid=whole["rows_in"])
    return found


def _of_block(
    shard: str,
    decided: pl.DataFrame,
    rules: Sequence[Rule],
    query_texts: Mapping[str, Mapping[str, str]],
) -> Json:
    """What a shard of these valid rows alone would contribute."""
    decisions = Counter(decided["decision"].to_list())
    return {
        "schema": SCHEMA,
        "rows_in": len(decided),
        "kept": decisions["keep"],
        "dropped": decisions["drop"],
        "quarantined": 0,
        "groups": count_groups(decided),
        "drop_reasons": _drop_reasons(decided),
        "quarantine": {},
        "queries": _queries(decided, query_texts),
        "truncated": dict.fromkeys(TRUNCATED, 0),
        "behaviors": {
            rule.behavior: _behavior(shard, decided, rule, query_texts) for rule in rules
        },
    }


def _check_counts(found: Json, valid: int) -> None:
    shard, rows_in, kept, dropped, quarantined = (found[name] for name in ("shard", *COUNTS))
    undecided = valid - kept - dropped
    if undecided or rows_in != kept + dropped + quarantined:
        raise DataError(
            f"The rows of shard {shard} do not add up: {rows_in} came in, {kept} were kept, "
            f"{dropped} dropped, {quarantined} quarantined, {undecided} have no decision.",
            where=f"shard {shard}",
            allowed="rows in = kept + dropped + quarantined",
            fix="Materialise corpus, influence_scores and filtered_dataset of this shard again.",
        )


def _queries(decided: pl.DataFrame, queries: Collection[str]) -> dict[str, int]:
    own = decided.filter(pl.col("sample_id").is_in(list(queries)))
    return dict(sorted(Counter(own["sample_id"].to_list()).items()))


def _drop_reasons(decided: pl.DataFrame) -> list[Json]:
    dropped = decided.filter(pl.col("decision") == "drop")
    groups = dropped.group_by("rule", "behavior").agg(rows=pl.len().cast(pl.Int64))
    return add_rows(groups.to_dicts(), keys=("rule", "behavior"), values=("rows",))


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
        "histogram": count_histograms(own["label"].to_list(), scores, own["beyond"].to_numpy()),
        **{
            name: [_listed(shard, row, query_texts) for row in part.iter_rows(named=True)]
            for name, part in parts.items()
        },
    }


def _own_columns(decided: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    return decided.select(
        "sample_id",
        "file",
        "row",
        "label",
        "decision",
        "reason",
        "prompt",
        "response",
        score=rule.score(),
        percentile=pl.col(f"{rule.behavior}_percentile"),
        best_query=pl.col(f"{rule.behavior}_best_query"),
        beyond=rule.hit(),
    )


def _check_scores(shard: str, rule: Rule, scores: np.ndarray) -> None:
    impossible = ~(np.abs(scores) <= 1 + _ROUNDING)
    if impossible.any():
        raise DataError(
            f"{int(impossible.sum())} scores of behavior {rule.behavior} in shard {shard} are no "
            f"cosines; the first is {scores[impossible][0]}.",
            where=f"shard {shard}, column {rule.score_column}",
            allowed="finite numbers from -1 to 1",
            fix="Check that the encoder's vectors are finite and of unit length.",
        )


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
