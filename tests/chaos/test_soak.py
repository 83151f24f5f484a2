"""Many random changes, refreshed in groups, against a twin: a new home that only ever saw the state
at the end, with the same encoder in use."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.testing
import pytest

from influcoder_assets.workspace import Workspace
from influcoder_lib import memory
from tests.assets import tiny_home
from tests.chaos.changing_home import ChangingHome
from tests.chaos.conftest import Amount

SEED = 0
MOST_AT_ONCE = 12
LOOK_AFTER = 80
# Embeddings are computed in bfloat16 and stored in float16, in batches that differ.
TOLERANCE = 2e-3
# The encoder and what it was distilled from: no change here makes them anew, so a home that was
# built from nothing has to be given them.
KEPT = (
    "target_adapter",
    "distillation_set",
    "teacher_rankings",
    "influence_encoder",
    "champion_encoder",
)
FILES = {
    "corpus": ("samples.parquet", "quarantine.parquet"),
    "gradient_projections": ("candidates.parquet", "unusable.parquet", "features.npy"),
    "corpus_embeddings": ("ids.parquet",),
    "influence_scores": ("scores.parquet",),
    "decision_rule": ("rules.json",),
    "filtered_dataset": ("kept.parquet", "dropped.parquet", "aggregates.json"),
    "encoder_comparison": ("comparison.json",),
}
READ: dict[str, Callable[[Path], Any]] = {
    ".parquet": pl.read_parquet,
    ".npy": np.load,
    ".json": lambda path: json.loads(path.read_text()),
}
COUNTS = ("rows_in", "kept", "dropped", "quarantined")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "release", lambda: None)


def test_a_home_after_many_changes_is_the_one_that_is_built_from_the_last_state(
    tmp_path: Path, amount: Amount
) -> None:
    home = tiny_home.build_home(tmp_path / "home")
    state, dice = ChangingHome(SEED), random.Random(SEED)
    refresh(state, home)
    left, unseen = amount.changes, 0
    while left:
        size = min(left, dice.randint(1, MOST_AT_ONCE))
        left, unseen = left - size, unseen + size
        said = [state.change() for _ in range(size)]
        try:
            refresh(state, home)
            if unseen >= LOOK_AFTER or not left:
                compare(home, twin_of(state, home, tmp_path / f"twin{left}"))
                unseen = 0
        except BaseException as error:
            error.add_note(f"with {left} changes left, after: {'; '.join(said)}")
            raise


def refresh(state: ChangingHome, home: Path) -> None:
    """Bring a home to a state and up to date; then nothing is left to do."""
    state.write(home)
    assert tiny_home.refresh(home).failures == []
    assert tiny_home.plan(home) == []


def twin_of(state: ChangingHome, home: Path, twin: Path) -> Path:
    """A home with this one's encoder, made of the state and of nothing else."""
    tiny_home.copy_home(home, twin)
    for folder in ("history", "storage", "schedules", "corpus", "queries"):
        shutil.rmtree(twin / folder)
    for path in (twin / "data").iterdir():
        if path.name not in ("artifacts", "manifests"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for kind in ("artifacts", "manifests"):
        for path in (twin / "data" / kind).iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path)
    (twin / "queries").mkdir()
    (twin / "corpus").mkdir()
    refresh(state, twin)
    return twin


def compare(home: Path, twin: Path) -> None:
    """Ids, decisions, counts and texts are the same; floats agree within the tolerance."""
    stores = [Workspace.open(each).store for each in (home, twin)]
    shards = list(Workspace.open(home).shards)
    for asset, names in FILES.items():
        for shard in shards if asset in tiny_home.SHARDED else [None]:
            for name in names:
                read = READ[Path(name).suffix]
                one, other = (read(each.path(each.require(asset, shard), name)) for each in stores)
                assert_same(one, other, f"{asset}/{shard}/{name}")
    one, other = (each.require("curation_report").summary for each in stores)
    assert [one[name] for name in COUNTS] == [other[name] for name in COUNTS]


def assert_same(one: Any, other: Any, where: str) -> None:
    """Two tables, arrays or JSON values are the same, but for the noise in their floats."""
    if isinstance(one, pl.DataFrame):
        polars.testing.assert_frame_equal(one, other, abs_tol=TOLERANCE, rel_tol=0)
    elif isinstance(one, np.ndarray):
        np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0, err_msg=where)
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for name, value in one.items():
            assert_same(value, other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for place, values in enumerate(zip(one, other, strict=True)):
            assert_same(*values, where=f"{where}[{place}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=TOLERANCE), where
    else:
        assert one == other, where
