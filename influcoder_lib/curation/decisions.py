"""Scores to decisions: rules, the reviewer's list, and one reason on record for every sample."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import DataError

OVERRIDE_COLUMNS = ("sample_id", "decision", "note")
DECISION_SCHEMA = {
    "decision": pl.String,
    "reason": pl.String,
    "behavior": pl.String,
    "score": pl.Float32,
    "percentile": pl.Float32,
    "best_query": pl.String,
    "rule": pl.String,
    "threshold": pl.Float64,
}


@dataclass(frozen=True)
class Override:
    """The reviewer's word on one sample; it beats every rule."""

    sample_id: str
    decision: Literal["keep", "drop"]
    note: str


def read_overrides(path: Path) -> list[Override]:
    """The reviewer's list: a UTF-8 csv with the columns sample_id, decision, note.

    The note may be empty. A sample may be listed twice with the same decision; its first note is
    the one that counts.

    Raises:
        DataError: the file cannot be read, a column is missing or unknown, a row is malformed,
            or two rows contradict each other; names the file and the line that the row ends in.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = tuple(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"The reviewer's list cannot be read: {error}.",
            where=f"file {path}",
            allowed="a UTF-8 csv with the columns sample_id,decision,note",
        ) from error
    if sorted(header) != sorted(OVERRIDE_COLUMNS):
        raise DataError(
            "The reviewer's list has other columns than it should.",
            where=f"file {path}, header {','.join(header) or '(empty)'}",
            allowed="exactly sample_id,decision,note",
        )
    listed = [(line, _override(row, f"file {path}, line {line}")) for line, row in rows]
    _check_contradictions(listed, f"file {path}, lines")
    first: dict[str, Override] = {}
    for _, override in listed:
        first.setdefault(override.sample_id, override)
    return list(first.values())


def decide(
    scored: pl.DataFrame, rules: Sequence[Rule], overrides: Sequence[Override] = ()
) -> pl.DataFrame:
    """Keep or drop every sample, with the reason; `scored` plus the columns of DECISION_SCHEMA.

    `scored` has a sample_id and, for each behavior b of the rules, b_mean or b_max (whichever
    the rule reads), b_percentile and b_best_query (the query's sample_id). Rows stay in order.

    In order of precedence:

    1. The reviewer's word ("reviewer: always drop (note)"; rule "reviewer").
    2. An unwanted behavior whose score is strictly above its threshold drops the sample. Of
       several, the one with the highest percentile is named; ties go to the earlier rule.
    3. A wanted behavior whose score reaches its threshold keeps it; named in the same way.
    4. With any wanted rule, a sample that none claims is dropped; without, it is kept.

    What does not apply is null: `behavior`, `score`, `percentile`, `best_query` and `threshold`
    for 1 and 4, `rule` for 4. An override of a sample that is not here has no effect here.

    Raises:
        DataError: a column is missing; a score or percentile is null or not finite; overrides
            contradict each other.
        ValueError: `scored` already has one of the columns to be added.
    """
    _check_scored(scored, rules)
    _check_contradictions(enumerate(overrides, 1), "overrides")
    listed = pl.DataFrame(
        [(entry.sample_id, entry.decision, entry.note) for entry in overrides],
        schema={"sample_id": pl.String, "_reviewed": pl.String, "_note": pl.String},
        orient="row",
    ).unique("sample_id", keep="first", maintain_order=True)
    unwanted = [rule for rule in rules if rule.kind == "unwanted"]
    wanted = [rule for rule in rules if rule.kind == "wanted"]
    verdict = pl.coalesce(
        _reviewer_verdict(),
        _rules_verdict(unwanted),
        _rules_verdict(wanted),
        _default_verdict(unwanted, wanted),
    )
    joined = scored.join(listed, on="sample_id", how="left", maintain_order="left")
    return (
        joined.with_columns(verdict.alias("_verdict")).drop("_reviewed", "_note").unnest("_verdict")
    )


def _override(row: dict[Any, Any], where: str) -> Override:
    if None in row or None in row.values():
        raise DataError(
            "A row of the reviewer's list has more or fewer fields than the header.",
            where=where,
            allowed="three fields; a note with a comma stands in double quotes",
        )
    identity, decision, note = (row[column].strip() for column in OVERRIDE_COLUMNS)
    if not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise DataError(
            f"{identity!r} is no sample id.",
            where=f"{where}, field sample_id",
            allowed="32 characters from 0-9 and a-f, as in the filtered dataset",
        )
    if decision not in ("keep", "drop"):
        raise DataError(
            f"{decision!r} is no decision.",
            where=f"{where}, field decision",
            allowed="keep, drop",
        )
    return Override(identity, decision, note)


def _check_contradictions(numbered: Iterable[tuple[int, Override]], where: str) -> None:
    first: dict[str, tuple[int, Override]] = {}
    for number, override in numbered:
        earlier, known = first.setdefault(override.sample_id, (number, override))
        if known.decision != override.decision:
            raise DataError(
                f"The reviewer's list both keeps and drops sample {override.sample_id}.",
                where=f"{where} {earlier} and {number}",
                fix="remove one of the two",
            )


def _check_scored(scored: pl.DataFrame, rules: Sequence[Rule]) -> None:
    clash = sorted(set(scored.columns) & {*DECISION_SCHEMA, "_reviewed", "_note", "_verdict"})
    if clash:
        raise ValueError(f"the scores already have columns {', '.join(clash)}")
    numbers = {rule.score_column for rule in rules} | {
        f"{rule.behavior}_percentile" for rule in rules
    }
    needed = {"sample_id", *numbers, *(f"{rule.behavior}_best_query" for rule in rules)}
    missing = sorted(needed - set(scored.columns))
    if missing:
        raise DataError("The scores do not have every column.", where=", ".join(missing))
    broken = scored.select(
        pl.col(sorted(numbers)).cast(pl.Float64).is_finite().fill_null(False).not_().sum()
    )
    for name in broken.columns:
        if count := broken[name].item():
            raise DataError(
                f"{count} samples have no finite number as {name}.",
                where=f"column {name}",
                fix="materialise influence_scores again",
            )


def _verdict(**known: pl.Expr | str) -> pl.Expr:
    """A struct with every field of DECISION_SCHEMA, null where nothing is said."""
    values = ((name, known.get(name), dtype) for name, dtype in DECISION_SCHEMA.items())
    return pl.struct(
        (value if isinstance(value, pl.Expr) else pl.lit(value)).cast(dtype).alias(name)
        for name, value, dtype in values
    )


def _reviewer_verdict() -> pl.Expr:
    note = pl.col("_note")
    suffix = pl.when(note == "").then(pl.lit("")).otherwise(pl.lit(" (") + note + pl.lit(")"))
    verdict = _verdict(
        decision=pl.col("_reviewed"),
        reason=pl.lit("reviewer: always ") + pl.col("_reviewed") + suffix,
        rule="reviewer",
    )
    return pl.when(pl.col("_reviewed").is_not_null()).then(verdict)


def _rules_verdict(rules: Sequence[Rule]) -> pl.Expr:
    """The verdict of the rule that hits with the highest percentile; null where none hits."""
    ranks = [
        pl.when(rule.hit()).then(pl.col(f"{rule.behavior}_percentile").cast(pl.Float64))
        for rule in rules
    ]
    if not ranks:
        return pl.lit(None)
    highest = pl.max_horizontal(ranks)
    return pl.coalesce(
        pl.when(rank == highest).then(_rule_verdict(rule))
        for rule, rank in zip(rules, ranks, strict=True)
    )


def _rule_verdict(rule: Rule) -> pl.Expr:
    score = rule.score()
    verb = "is above" if rule.kind == "unwanted" else "reaches"
    # Three decimals read well; six where three would show two equal numbers.
    short, long = (
        pl.concat_str(
            pl.lit(f"{rule.behavior}: score "),
            _decimal(score, places),
            pl.lit(f" {verb} the threshold {rule.threshold:z.{places}f} ({rule.label})"),
        )
        for places in (3, 6)
    )
    looks_equal = _decimal(score, 3) == pl.lit(f"{rule.threshold:z.3f}")
    return _verdict(
        decision="drop" if rule.kind == "unwanted" else "keep",
        reason=pl.when(looks_equal).then(long).otherwise(short),
        behavior=rule.behavior,
        score=score,
        percentile=pl.col(f"{rule.behavior}_percentile"),
        best_query=pl.col(f"{rule.behavior}_best_query"),
        rule=rule.label,
        threshold=pl.lit(rule.threshold),
    )


def _decimal(number: pl.Expr, places: int) -> pl.Expr:
    """Fixed-point text, the same as Python's `:z.3f` (the products are exact in float64)."""
    scale = 10**places
    scaled = (number.cast(pl.Float64) * scale).round(mode="half_to_even").cast(pl.Int64)
    size = scaled.abs()
    return pl.concat_str(
        pl.when(scaled < 0).then(pl.lit("-")).otherwise(pl.lit("")),
        size // scale,
        pl.lit("."),
        (size % scale).cast(pl.String).str.zfill(places),
    )


def _default_verdict(unwanted: Sequence[Rule], wanted: Sequence[Rule]) -> pl.Expr:
    if wanted:
        return _verdict(decision="drop", reason="no wanted behavior reaches its threshold")
    if unwanted:
        return _verdict(decision="keep", reason="no unwanted behavior is above its threshold")
    return _verdict(decision="keep", reason="no rule is set")
