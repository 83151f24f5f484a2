"""Raw files for the tests of their readers: written in every format, ingested, refused."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influcoder_lib.errors import DataError
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.samples import QUARANTINE_SCHEMA, read_samples

PLAIN = Columns()


def ingested(
    path: Path, columns: Columns = PLAIN, max_characters: int = 1000
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples and quarantine of a file; the counts must be those of the tables."""
    out = path.parent / "out"
    samples_out, quarantine_out = out / "samples.parquet", out / "quarantine.parquet"
    done = ingest(path, path.name, columns, samples_out, quarantine_out, max_characters)
    samples, quarantine = read_samples(samples_out), pl.read_parquet(quarantine_out)
    assert quarantine.schema == QUARANTINE_SCHEMA
    assert (done.valid, done.quarantined) == (samples.height, quarantine.height)
    assert sorted(p.name for p in out.iterdir()) == ["quarantine.parquet", "samples.parquet"]
    return samples, quarantine


def jsonl(path: Path, *rows: Any) -> Path:
    """A file with one line a row; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_all(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The same rows in each of the four formats."""
    names = list(rows[0])
    lines = jsonl(folder / "a.jsonl", *rows)
    packed = folder / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    with (folder / "c.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    table = pa.table({name: [row[name] for row in rows] for name in names})
    pq.write_table(table, folder / "d.parquet")
    return [lines, packed, folder / "c.csv", folder / "d.parquet"]


def refused(path: Path, columns: Columns = PLAIN) -> DataError:
    with pytest.raises(DataError) as caught:
        ingested(path, columns)
    assert path.name in caught.value.where
    assert list((path.parent / "out").iterdir()) == []
    return caught.value
