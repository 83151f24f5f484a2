"""Malformed files by the hundred: each becomes what is known of it, in bounded memory, and none of
them stops another."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from influcoder_assets.workspace import Workspace
from influcoder_lib import memory
from influcoder_lib.errors import shown
from influcoder_lib.samples import partition_key
from tests.assets import tiny_home
from tests.assets.changes import counts, interrupt
from tests.chaos.conftest import Amount
from tests.chaos.malformed import Expected, write_corpus

SEED = 0
# Of what is read here, one file alone would unpack to 200 GB.
MOST_MEMORY = 1 << 30


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "release", lambda: None)


def test_every_row_of_malformed_files_is_a_sample_or_in_quarantine_with_its_reason(
    tmp_path: Path, amount: Amount
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    made = write_corpus(corpus, amount.files, SEED)
    found = ingested(corpus, out)
    assert sorted([*found["counts"], *found["said"]]) == sorted(each.name for each in made)
    assert [said for each in made if (said := mistaken(each, found, out))] == []
    assert found["peak"] < MOST_MEMORY


def ingested(corpus: Path, out: Path) -> dict[str, Any]:
    """What `ingesting` says of a corpus, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.ingesting", corpus, out],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def mistaken(expected: Expected, found: dict[str, Any], out: Path) -> str:
    """What became of the file that is not known of it; empty if it is as it should be."""
    name, part = expected.name, expected.fails or expected.refused
    if part or name in found["said"]:
        said = found["said"].get(name, "nothing was said")
        return "" if part and part in said else f"{name}: {said}"
    key, valid, quarantined = found["counts"][name]
    reasons = pl.read_parquet(out / key / "quarantine.parquet")["reason"].to_list()
    bad = sorted_by_part(reasons, expected.bad)
    is_right = (valid, quarantined) == (expected.good, bad.total()) and bad == expected.bad
    return "" if is_right else f"{name}: {valid} valid, {bad}; not {expected}"


def sorted_by_part(reasons: Iterable[str], parts: Iterable[str]) -> Counter[str]:
    """How many reasons hold each part, the longest one that they hold."""
    return Counter(
        max((part for part in parts if part in reason), key=len, default=reason)
        for reason in reasons
    )


def test_a_refresh_over_malformed_files_makes_all_that_can_be_made_and_names_the_rest(
    tmp_path: Path, amount: Amount
) -> None:
    home = tiny_home.build_home(tmp_path / "home")
    assert tiny_home.refresh(home).failures == []
    before = counts(home)
    made = write_corpus(home / "corpus", amount.files // 5, SEED)
    again = tiny_home.refresh(home)
    assert again.run.status == dg.DagsterRunStatus.FAILURE
    read = {partition_key(each.name): each for each in made if not each.fails + each.refused}
    expected = {(asset, key) for key in read for asset in tiny_home.A_SHARD}
    assert again.made == expected | tiny_home.everywhere(*tiny_home.MERGED)
    (said,) = again.failures
    for each in made:
        if part := each.fails or each.refused:
            name = shown(each.name) if each.refused else partition_key(each.name)
            assert f"corpus/{name}: " in said
            assert part in said
    store = Workspace.open(home).store
    for key, each in read.items():
        summary = store.require("filtered_dataset", key).summary
        assert summary["kept"] + summary["dropped"] == each.good, key
        assert summary["quarantined"] == each.bad.total(), key
    after = counts(home)
    good, bad = (sum(each) for each in zip(*((e.good, e.bad.total()) for e in made), strict=True))
    assert after["rows_in"] == before["rows_in"] + good + bad
    assert after["quarantined"] == before["quarantined"] + bad
    assert after["kept"] + after["dropped"] + after["quarantined"] == after["rows_in"]
    assert tiny_home.plan(home) == []


def test_a_file_that_vanishes_before_or_while_it_is_read_is_gone_in_the_next_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tiny_home.build_home(tmp_path / "home")
    for name in ("new1", "new2"):
        tiny_home.write_rows(home / "corpus" / f"{name}.jsonl", tiny_home.rows(name))

    def vanish() -> None:
        for path in (home / "corpus").glob("new*.jsonl"):
            path.unlink()

    with monkeypatch.context() as patch:
        interrupt(patch, "corpus", "new1.jsonl", vanish)
        again = tiny_home.refresh(home)
    (said,) = again.failures
    assert said.startswith("corpus/new1.jsonl: shard changed while corpus/new1.jsonl was made")
    assert {shard for _, shard in again.made} == {None, *tiny_home.SHARDS}
    assert tiny_home.refresh(home).failures == []
    assert tiny_home.plan(home) == []
