"""The two tables of an exported shard: their columns, and how they are written in each format.

All shards have one schema, whatever is null in them; the card declares it, so that readers need not
guess it from the first rows.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from influcoder_lib.curation.decisions import DECISION_SCHEMA
from influcoder_lib.samples import SAMPLE_SCHEMA
from influcoder_lib.tables import load_table

Format = Literal["parquet", "jsonl"]

_REASONS = {name: dtype for name, dtype in DECISION_SCHEMA.items() if name != "decision"}
SCHEMAS = {
    "data": SAMPLE_SCHEMA,
    "dropped": pl.Schema(SAMPLE_SCHEMA | pl.Schema({**_REASONS, "encoder": pl.String})),
}
"""Columns by the folder that they are in; a dropped row also says why it was dropped."""

_DTYPES = {pl.String: "string", pl.Int64: "int64", pl.Float32: "float32", pl.Float64: "float64"}


def features(part: str) -> list[dict[str, str]]:
    """The columns of a part as the hub's metadata names them."""
    return [
        {"name": name, "dtype": _DTYPES[dtype.base_type()]} for name, dtype in SCHEMAS[part].items()
    ]


def read_part(path: Path, part: str) -> pl.DataFrame:
    """The exported columns of a stored shard's kept or dropped rows."""
    schema = SCHEMAS[part]
    return load_table(path, columns=schema.names()).cast(schema)


def write_part(rows: pl.DataFrame, path: Path, form: Format) -> bool:
    """Write one table, equal rows to equal bytes; whether there is a file.

    Without rows there is a parquet file, which has a schema, but no jsonl file, which would not.
    """
    if form == "parquet":
        rows.write_parquet(path)
    elif len(rows):
        rows.write_ndjson(path)
    return form == "parquet" or len(rows) > 0
