"""The exported tables: any text comes back as it was, in either format."""

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.export.tables import SCHEMAS, features, read_part, write_part

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scores = st.none() | st.floats(-1, 1, width=32)
rows = st.lists(
    st.fixed_dictionaries(
        {
            name: texts if name in ("prompt", "response") else st.none() | texts
            for name, dtype in SCHEMAS["dropped"].items()
            if dtype == pl.String
        }
        | {"row": st.integers(0, 2**62), "score": scores, "percentile": scores}
        | {"threshold": st.none() | st.floats(-1, 1)}
    ),
    max_size=5,
)


def read(path: Path) -> list[dict]:
    """What a reader that knows nothing of us finds."""
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@given(rows)
def test_any_text_and_number_survives(form, given_rows):
    frame = pl.DataFrame(given_rows, schema=SCHEMAS["dropped"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shard.{form}"
        assert write_part(frame, path, form) == path.is_file()
        found = pl.DataFrame(read(path) if path.is_file() else [], schema=SCHEMAS["dropped"])
    assert found.equals(frame)


@pytest.mark.parametrize("part", SCHEMAS)
def test_only_the_exported_columns_are_read_in_their_order(tmp_path, part):
    schema = {"more": pl.Int64, **dict(reversed(SCHEMAS[part].items())), "toxic_max": pl.Float32}
    pl.DataFrame(schema=schema).write_parquet(tmp_path / "stored.parquet")
    found = read_part(tmp_path / "stored.parquet", part)
    assert list(found.schema.items()) == list(SCHEMAS[part].items())


def test_the_hub_is_told_every_column_and_its_type():
    told = {each["name"]: each["dtype"] for each in features("dropped")}
    assert list(told) == list(SCHEMAS["dropped"])
    assert (told["prompt"], told["row"], told["score"], told["threshold"]) == (
        "string",
        "int64",
        "float32",
        "float64",
    )
