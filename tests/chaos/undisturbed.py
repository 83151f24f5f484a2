"""Homes that hold the same, whatever happened on the way: what a refresh ends in, and comparing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.testing
import yaml

from influcoder_assets.maker import nodes
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.chaos.victim import Victim, batches

# Of scores and embeddings, whose batches differ after a kill.
TOLERANCE = 1e-4
ASSETS = [node.name for node in nodes()]
_TABLES = {
    "corpus": ("samples", "quarantine"),
    "influence_scores": ("scores",),
    "filtered_dataset": ("kept", "dropped"),
}


@dataclass(frozen=True)
class Undisturbed:
    """A home that nobody disturbed: before its first refresh and after it, what that ended in, how
    long each asset took at most, and the most samples that a model read at once."""

    pristine: Path
    home: Path
    outcome: dict[str, Any]
    seconds: dict[str, float]
    largest_batch: int

    @classmethod
    def below(cls, folder: Path) -> "Undisturbed":
        """Make and refresh one."""
        pristine = _ready_home(folder / "pristine")
        home = tiny_home.copy_home(pristine, folder / "home")
        victim = Victim(home, folder / "computed")
        begun: dict[str, float] = {}
        seconds: dict[str, float] = {}
        for kind, artifact, when in victim.events():
            asset = artifact.split("/")[0]
            if kind == "starts":
                begun[artifact] = when
            else:
                seconds[asset] = max(seconds.get(asset, 0.0), when - begun[artifact])
        assert victim.end() == 0
        assert seconds.keys() == set(ASSETS)
        largest = max(len(ids) for _, ids in batches(folder / "computed"))
        return cls(pristine, home, outcome(home), seconds, largest)


def _ready_home(home: Path) -> Path:
    """A tiny home before its first refresh, its encoder of the product's default kind."""
    tiny_home.build_home(home)
    settings = tiny_home.settings()
    settings["encoder"] = {"path": "models/encoder", "window": 32}
    (home / "influcoder.yaml").write_text(yaml.safe_dump(settings))
    return home


def outcome(home: Path) -> dict[str, Any]:
    """All that a refresh is for: samples, quarantine, scores and decisions of every shard, counts,
    thresholds."""
    workspace = Workspace.open(home)
    store = workspace.store
    found: dict[str, Any] = {}
    for shard in sorted(workspace.shards):
        for asset, tables in _TABLES.items():
            manifest = store.require(asset, shard)
            for table in tables:
                found[f"{asset}/{shard}/{table}"] = pl.read_parquet(
                    store.path(manifest, f"{table}.parquet")
                )
    summary = store.require("curation_report").summary
    found["counts"] = {name: summary[name] for name in ("rows_in", "kept", "dropped")}
    found["thresholds"] = store.require("decision_rule").summary
    return found


def check_same(home: Path, expected: dict[str, Any]) -> None:
    """The home's outcome: ids, decisions, counts and texts exactly, floats within TOLERANCE; and
    nothing is left to do, and no file half written."""
    found = outcome(home)
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        own = found[name]
        if isinstance(each, pl.DataFrame):
            # Which encoder a score is of, and the sentence that quotes it, name floats' bytes.
            polars.testing.assert_frame_equal(
                own.drop("encoder", strict=False),
                each.drop("encoder", strict=False),
                abs_tol=TOLERANCE,
                rel_tol=0,
            )
        elif name == "thresholds":
            np.testing.assert_allclose([*own.values()], [*each.values()], atol=TOLERANCE)
        else:
            assert own == each, name
    assert tiny_home.plan(home) == []
    assert leftovers(home) == []


def leftovers(home: Path) -> list[Path]:
    """Files and folders that somebody began to write and did not finish."""
    data = home / "data"
    staging = data / "staging"
    return [*data.rglob("*.part"), *(staging.iterdir() if staging.is_dir() else [])]
