"""Where the shards are made changes nothing of what is made."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from influcoder_assets import engine, maker
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import SettingsError
from tests.assets import tiny_home
from tests.assets.tiny_home import SHARDS

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray, an optional extra, is not installed"
)
RAY = {"kind": "ray", "workers": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """What the first test starts of Ray serves them all, as a cluster does: its workers load all
    libraries once."""
    yield
    engine.stop()


@pytest.fixture
def on_ray(new_home, cluster):
    """A home in which nothing was made yet, whose shards are made as tasks of Ray."""
    tiny_home.write_settings(new_home, tiny_home.settings() | {"engine": RAY})
    return new_home


def fingerprints(home: Path) -> dict:
    """Content of everything that was made, but the report, which says when."""
    store = Workspace.open(home).store
    return {
        (node.name, shard): manifest.fingerprint
        for node in maker.nodes()
        if node.name != "curation_report"
        for shard in (SHARDS if node.sharded else [None])
        if (manifest := store.current(node.name, shard))
    }


def begin(home: Path, asset: str = "corpus"):
    """Begin with all shards of an asset; gives what collects one of them."""
    workspace = Workspace.open(home)
    facts = maker.current_facts(workspace)
    making = engine.start(workspace, facts, asset, SHARDS, "a run")
    return lambda shard: making(workspace, facts, asset, shard, "a run")


@needs_ray
def test_a_home_refreshed_on_ray_is_that_of_a_local_refresh(on_ray, done):
    refreshed = tiny_home.refresh(on_ray)
    assert refreshed.failures == []
    assert [(each.asset_key, each.partition) for each in refreshed.materialized] == [
        (each.asset_key, each.partition) for each in done.first.materialized
    ]
    assert fingerprints(on_ray) == fingerprints(done.home)


@needs_ray
def test_a_shard_fails_on_ray_alone_and_as_it_does_here_and_a_killed_worker_is_replaced(
    on_ray, monkeypatch, tmp_path
):
    (on_ray / "corpus" / "c.parquet").write_bytes(b"no parquet")
    whole, marker = engine.make_at, tmp_path / "was killed"

    def dies_once(home, settings, facts, asset, shard, *others):
        if shard == "a.jsonl" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(home, settings, facts, asset, shard, *others)

    monkeypatch.setattr(engine, "make_at", dies_once)
    collect = begin(on_ray)
    made = {shard: collect(shard) for shard in ("a.jsonl", "sub.b.csv")}
    with pytest.raises(Exception, match=r"c\.parquet") as caught:
        collect("c.parquet")
    assert marker.exists()
    workspace = Workspace.open(on_ray)
    (failure,) = workspace.store.failures().items()
    assert (failure[0], failure[1][1]) == (("corpus", "c.parquet"), maker.told(caught.value))
    with pytest.raises(type(caught.value)) as local:
        tiny_home.make(workspace, "corpus", "c.parquet")
    assert str(local.value) == str(caught.value)
    assert workspace.store.failures() == dict([failure])
    for shard, (manifest, task) in made.items():
        assert task.facts.recorded["corpus", shard][1] == manifest.fingerprint
        here, _ = tiny_home.make(workspace, "corpus", shard)
        assert here.fingerprint == manifest.fingerprint


@needs_ray
def test_settings_that_change_under_way_are_not_those_of_a_begun_shard(on_ray):
    collect = begin(on_ray)
    changed = tiny_home.settings() | {"engine": RAY}
    changed["corpus"] = {**changed["corpus"], "max_characters": 5}
    tiny_home.write_settings(on_ray, changed)
    manifest, _ = collect("a.jsonl")
    assert manifest.recipe.settings["max_characters"] > 5
    assert manifest.summary["valid"] > 0


def test_an_engine_that_is_not_installed_is_named_with_its_extra(new_home, monkeypatch):
    tiny_home.write_settings(new_home, tiny_home.settings() | {"engine": RAY})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"\.\[ray\]"):
        begin(new_home)
    (said,) = tiny_home.refresh(new_home).failures[:1]
    assert "The engine is Ray, which is not installed." in said
