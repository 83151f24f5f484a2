"""Which rows bench.larger judges on and which it trains on."""

import argparse
from pathlib import Path

import polars as pl
import pytest

from bench.larger import parts


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of the shape of ../shared/data."""
    folder = tmp_path / "fidelity"
    folder.mkdir()
    questions = {"prompt": ["asked", "judged"], "target": ["1", "2"], "split": ["train", "dev"]}
    pl.DataFrame(questions).write_parquet(folder / "queries.parquet")
    rows = {
        "prompt": ["Name three rivers.", "Write a poem about the autumn wind and the sea."],
        "response": ["Rhine", "Wind"],
        "split": ["train", "dev"],
    }
    pl.DataFrame(rows).write_parquet(folder / "candidates.parquet")
    bbh = {"prompt": ["asked", "judged", "new", "newer"], "target": ["1", "3", "4", "5"]}
    pl.DataFrame(bbh).write_parquet(tmp_path / "bbh.parquet")
    prompts = [
        "Name three rivers.",
        "Write a poem about the autumn wind and the sea!",
        "How old is the moon?",
        "Who wrote Faust?",
        "What is a prime number?",
        "Where do penguins live?",
        "Why is the sky blue?",
    ]
    dolly = {
        "prompt": prompts,
        "response": ["Rhine", "a", "b", "c", "d", "e", "f"],
        "split": ["distil", "distil", "pool", "pool", "pool", "pool", "fidelity"],
    }
    pl.DataFrame(dolly).write_parquet(tmp_path / "dolly.parquet")
    return tmp_path


def prompts_of(data: Path, candidates: int | None = None) -> list[list[str]]:
    """Prompts of the queries and candidates that are judged, and of those trained on."""
    judged, trained = parts(argparse.Namespace(data=data, candidates=candidates))
    return [[each.prompt for each in side] for side in (*judged, *trained)]


def test_nothing_judged_is_trained_on_nor_any_row_twice(data):
    asked, offered, queries, candidates = prompts_of(data)
    assert (asked, offered) == (["judged"], ["Write a poem about the autumn wind and the sea."])
    assert candidates == [
        "Name three rivers.",
        "How old is the moon?",
        "Who wrote Faust?",
        "What is a prime number?",
        "Where do penguins live?",
    ]
    assert queries == ["asked", "new"]


def test_fewer_candidates_have_fewer_queries_in_the_same_proportion(data):
    _, _, queries, candidates = prompts_of(data, candidates=3)
    assert (len(queries), len(candidates)) == (1, 3)
