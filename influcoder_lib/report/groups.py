"""The groups that kept and dropped samples are counted in: label, source, length and script.

A script says which language a sample may be in, and costs a glance at its letters: the Unicode
script that most letters of prompt and response belong to. Equally many go to the earlier script of
SCRIPTS, "other" last; without a letter it is "none". Japanese with more kanji than kana reads
"Han".
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

Json = dict[str, Any]

GROUPS = ("label", "source", "length", "script")
MOST_NAMED = 1000
"""A corpus may have a label or a source for every row, of which a report shows few."""
OTHERS = "\0others"
"""No label or source has such a name: texts with a NUL character go to quarantine."""

_EDGES = (100, 300, 1000, 3000, 10_000)
LENGTHS = (
    "under 100",
    "100 to 299",
    "300 to 999",
    "1,000 to 2,999",
    "3,000 to 9,999",
    "10,000 or more",
)
"""Buckets of a response's length in characters, shortest first."""

SCRIPTS = {
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Devanagari": r"\p{Devanagari}",
    "Bengali": r"\p{Bengali}",
    "Tamil": r"\p{Tamil}",
    "Thai": r"\p{Thai}",
    "Han": r"\p{Han}",
    "Kana": r"[\p{Hiragana}\p{Katakana}]",
    "Hangul": r"\p{Hangul}",
}
"""Scripts by name, each with the pattern of its characters."""


def count_groups(decided: pl.DataFrame) -> dict[str, list[Json]]:
    """For each of GROUPS, what `add_groups` makes of the rows of all names.

    `decided` has prompt, response, label, source and decision ("keep" or "drop").
    """
    rows = decided.select(
        "label",
        "source",
        length=_bucket(pl.col("response").str.len_chars()),
        script=dominant_script(decided),
        kept=(pl.col("decision") == "keep").cast(pl.Int64),
        dropped=(pl.col("decision") == "drop").cast(pl.Int64),
    )
    counted = {
        group: rows.group_by(name=group).agg(pl.col("kept", "dropped").sum(), partial=False)
        for group in GROUPS
    }
    return {group: add_groups([found.to_dicts()]) for group, found in counted.items()}


def dominant_script(samples: pl.DataFrame) -> pl.Series:
    """Name of the script of each row's prompt and response, see above."""
    texts = samples.select(text=pl.concat_str("prompt", "response"))["text"]
    # Letters are slow to count; those of ASCII alone are Latin.
    mixed = texts.str.contains(r"[\p{L}--\p{ASCII}]").arg_true()
    script = texts.str.contains("[A-Za-z]").replace_strict({True: "Latin", False: "none"})
    return script.scatter(mixed, _dominant_by_count(texts.gather(mixed)))


def _dominant_by_count(texts: pl.Series) -> pl.Series:
    counts = texts.to_frame("text").select(
        pl.col("text").str.count_matches(rf"[\p{{L}}&&{pattern}]").alias(name)
        for name, pattern in {**SCRIPTS, "any": r"\p{L}"}.items()
    )
    counts = counts.with_columns(other=pl.col("any") - pl.sum_horizontal(*SCRIPTS))
    names = [*SCRIPTS, "other"]
    most = pl.max_horizontal(names)
    script = pl.coalesce(pl.when(pl.col(name) == most).then(pl.lit(name)) for name in names)
    return counts.select(
        pl.when(pl.col("any") == 0).then(pl.lit("none")).otherwise(script)
    ).to_series()


def _bucket(characters: pl.Expr) -> pl.Expr:
    below = (
        pl.when(characters < edge).then(pl.lit(name))
        for edge, name in zip(_EDGES, LENGTHS, strict=False)
    )
    return pl.coalesce(*below, pl.lit(LENGTHS[-1]))


def add_groups(parts: Sequence[Sequence[Json]]) -> list[Json]:
    """Sum one group over parts: [{name, kept, dropped, partial}] by name, nulls last.

    Of more than MOST_NAMED names, those with most rows keep a row of their own, and all others are
    together in the one named OTHERS. The totals stay exact; a row is partial where some of what has
    its name may have been among the others of a part.
    """
    summed = add_rows(itertools.chain(*parts), keys=("name",), values=("kept", "dropped"))
    own = largest({row["name"]: row["kept"] + row["dropped"] for row in summed}, MOST_NAMED)
    together = ({**row, "name": row["name"] if row["name"] in own else OTHERS} for row in summed)
    found = add_rows(together, keys=("name",), values=("kept", "dropped"))
    partial = _partial({row["name"] for row in found} - {OTHERS}, parts)
    return [{**row, "partial": row["name"] in partial} for row in found]


def _partial(names: set[str | None], parts: Sequence[Sequence[Json]]) -> set[str | None]:
    """Those of the names of which a part may have rows among its others."""
    found: set[str | None] = set()
    for part in parts:
        whole = {row["name"] for row in part if not row["partial"]}
        found |= names - whole if OTHERS in whole else set()
    return found


def add_rows(rows: Iterable[Json], keys: tuple[str, ...], values: tuple[str, ...]) -> list[Json]:
    """Sum the values of rows with equal keys; sorted by key, nulls last."""
    totals: dict[tuple[str | None, ...], list[int]] = {}
    for row in rows:
        total = totals.setdefault(tuple(row[key] for key in keys), [0] * len(values))
        for place, value in enumerate(values):
            total[place] += row[value]
    ordered = sorted(totals.items(), key=lambda item: [null_last(part) for part in item[0]])
    return [dict(zip((*keys, *values), (*key, *total), strict=True)) for key, total in ordered]


def largest(rows: Mapping[str | None, int], most: int) -> set[str | None]:
    """So many of the names, those with most rows, of equals the first; OTHERS is none of them."""
    named = sorted(rows.keys() - {OTHERS}, key=lambda name: (-rows[name], null_last(name)))
    return set(named[:most])


def null_last(value: str | None) -> tuple[bool, str]:
    """Sorting key of a name that may be missing."""
    return value is None, value or ""
