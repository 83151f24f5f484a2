"""The pipeline at a location that machines share: one makes everything, the other has it."""

import filecmp
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from influcoder_assets.maker import makers
from influcoder_assets.workspace import Workspace
from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.errors import SettingsError, StoreError
from influcoder_lib.manifests import Key
from influcoder_lib.store import Manifest
from tests import s3
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import Refreshed, append_row, plan, rows
from tests.s3 import SECRET, Place


@dataclass(frozen=True)
class Shared:
    """A home that was refreshed at a location, and another machine's with an empty data folder."""

    one: Path
    two: Path
    place: Place


def share(home: Path, place: Place, **changed: object) -> None:
    """Have a tiny home keep its artifacts at a location."""
    storage = {"location": place.address, "options": place.options}
    encoder = {"path": "models/encoder", "architecture": "kernel", "dimension": 24, "window": 32}
    settings = tiny_home.settings() | {"encoder": encoder, "storage": storage}
    tiny_home.write_settings(home, settings | changed)


def another_machine(home: Path, other: Path) -> Path:
    """The same corpus, settings and registry on a machine that has made nothing."""
    tiny_home.copy_home(home, other)
    for made in ("data", "history", "schedules", "storage", "mlartifacts"):
        shutil.rmtree(other / made, ignore_errors=True)
    return other


@pytest.fixture(scope="session")
def refreshed(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, s3_url: str
) -> tuple[Path, Place, Refreshed]:
    """A home that was refreshed at a location. Tests write to neither."""
    place = s3.new_bucket(s3_url)
    home = tiny_home.copy_home(pristine, tmp_path_factory.mktemp("shared") / "one")
    share(home, place)
    return home, place, tiny_home.refresh(home)


@pytest.fixture
def shared(refreshed: tuple[Path, Place, Refreshed], tmp_path: Path) -> Shared:
    """To be read: the home, and another machine that has only just come."""
    home, place, _ = refreshed
    return Shared(home, another_machine(home, tmp_path / "two"), place)


@pytest.fixture
def own(refreshed: tuple[Path, Place, Refreshed], tmp_path: Path, bucket: Place) -> Shared:
    """To be changed: two machines that have only just come, at a copy of the location."""
    home, place, _ = refreshed
    s3.copy(place, bucket)
    one, two = (another_machine(home, tmp_path / name) for name in ("one", "two"))
    for each in (one, two):
        share(each, bucket)
    return Shared(one, two, bucket)


def in_force(home: Path) -> dict[Key, Manifest]:
    store = Workspace.open(home).store
    return {key: store.require(*key) for key in tiny_home.everywhere(*makers())}


def test_a_run_at_a_location_makes_what_a_run_without_one_makes(refreshed, done: Done):
    home, _, first = refreshed
    assert first.failures == []
    assert first.made == tiny_home.everywhere(*makers())
    assert plan(home) == []
    here, there = in_force(done.home), in_force(home)
    for key in tiny_home.everywhere("corpus", "behavior_queries", "gradient_projections"):
        assert there[key].fingerprint == here[key].fingerprint, key


def test_no_password_is_written_anywhere_but_in_the_settings(refreshed):
    home, _, _ = refreshed
    files = [
        path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert files == [home / "influcoder.yaml"]


def test_another_machine_has_nothing_to_make_and_no_model_runs(shared, no_model):
    assert plan(shared.two) == []
    assert tiny_home.refresh(shared.two).made == set()
    assert in_force(shared.two) == in_force(shared.one)
    artifacts = list((shared.two / "data").glob("artifacts/*"))
    assert artifacts == []


def test_every_file_comes_when_it_is_asked_for_and_is_the_same(shared):
    one, two = Workspace.open(shared.one).store, Workspace.open(shared.two).store
    for manifest in in_force(shared.one).values():
        for name in manifest.files:
            assert filecmp.cmp(one.path(manifest, name), two.path(manifest, name), shallow=False)


def test_views_and_explanations_are_the_same_on_both(shared):
    found = []
    for home in (shared.one, shared.two):
        catalog = Catalog(Workspace.open(home).store)
        asked = [f"SELECT * FROM {view} ORDER BY ALL" for view in ("decisions", "scores", "shards")]
        found.append([catalog.select(query).records() for query in asked])
    assert found[0] == found[1]
    assert len(found[0][0]) == 72
    sample = found[0][0][0]["sample_id"]
    told = [run("explain", sample, "--json", "--home", home) for home in (shared.two, shared.one)]
    assert told[0].exit_code == 0
    assert told[0].stdout == told[1].stdout


def test_export_search_and_status_work_with_an_empty_local_copy(shared, tmp_path):
    for name in ("one", "two"):
        done = run("export", tmp_path / f"export-{name}", "--home", getattr(shared, name))
        assert done.exit_code == 0, done.output
    compared = filecmp.dircmp(tmp_path / "export-one", tmp_path / "export-two")
    files = sorted(p.relative_to(compared.left) for p in Path(compared.left).rglob("*.*"))
    assert len(files) >= 4
    same, different, errors = filecmp.cmpfiles(compared.left, compared.right, files, shallow=False)
    assert (different, errors) == ([], [])
    assert len(same) == len(files)


@pytest.mark.parametrize("command", [("status",), ("search", "you are rude")])
def test_what_is_read_without_making_anything_works_on_both(shared, command, monkeypatch):
    monkeypatch.setattr("influcoder_lib.audit.search.time.perf_counter", lambda: 0.0)
    told = [run(*command, "--json", "--home", home).stdout for home in (shared.two, shared.one)]
    if command[0] == "search":
        assert json.loads(told[0]) == json.loads(told[1])
    else:
        one, two = (json.loads(text) for text in told)
        assert one["corpus"] == two["corpus"]
        assert one["steps"] == two["steps"] == []


def test_a_changed_shard_pays_for_its_changed_rows_only(own: Shared):
    append_row(own.two / "corpus" / "a.jsonl", rows("more", 1)[0])
    done = tiny_home.refresh(own.two)
    assert done.failures == []
    assert done.made == tiny_home.in_shard("a.jsonl")
    store = Workspace.open(own.two).store
    assert store.require("corpus_embeddings", "a.jsonl").summary["embedded"] == 1
    shutil.copy(own.two / "corpus" / "a.jsonl", own.one / "corpus" / "a.jsonl")
    assert plan(own.one) == []


def test_a_changed_rule_is_carried_out_with_files_that_others_made(own: Shared, no_model):
    behaviors = tiny_home.settings()["behaviors"]
    behaviors["rude"]["rule"]["value"] = 0.3
    share(own.two, own.place, behaviors=behaviors)
    done = tiny_home.refresh(own.two)
    assert done.failures == []
    assert done.made == tiny_home.everywhere("decision_rule", "filtered_dataset", "curation_report")


def test_vectors_are_computed_once_whoever_asks(own: Shared, no_model):
    for home in (own.one, own.two):
        store = Workspace.open(home).store
        again = [("corpus_embeddings", "a.jsonl"), ("gradient_projections", "a.jsonl")]
        for key in again:
            made, _ = tiny_home.make(Workspace.open(home), *key)
            assert made.fingerprint == store.require(*key).fingerprint


def test_a_machine_without_the_registry_does_not_take_the_encoder_away(own: Shared):
    """Nor does a home without a location, see test_champion."""
    assert Workspace.open(own.two).store.require("champion_encoder").summary["version"] == "1"
    (own.two / "mlflow.db").unlink()
    with pytest.raises(
        StoreError, match="version 1 of an MLflow registry that is not here"
    ) as caught:
        plan(own.two)
    assert "MLFLOW_TRACKING_URI" in caught.value.fix


def test_a_location_that_does_not_answer_is_one_sentence_in_every_command(own: Shared):
    place = s3.place("http://127.0.0.1:9", "bucket")
    share(own.two, place)
    for command in (["plan"], ["sql", "SELECT 1"], ["status"]):
        done = run(*command, "--home", own.two)
        assert done.exit_code == 1
        assert f"{place.address} (storage.location)" in done.output
        assert SECRET not in done.output


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ({"location": "bucket/prefix"}, "this is no URL of a location"),
        ({"location": f"sftp://me:{SECRET}@host/x"}, "this one holds a password"),
        ({"location": 7, "options": SECRET}, "what is given is not allowed"),
        ({"secret": SECRET}, "there is no such key"),
        (SECRET, "what is given is not allowed"),
    ],
)
def test_a_wrong_location_is_an_error_that_shows_no_password(new_home, storage, said):
    tiny_home.write_settings(new_home, tiny_home.settings() | {"storage": storage})
    with pytest.raises(SettingsError) as caught:
        Workspace.open(new_home)
    assert said in str(caught.value)
    assert "storage" in str(caught.value)
    assert SECRET not in str(caught.value)
