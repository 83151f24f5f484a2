"""What is remembered between runs costs time when it is lost, and nothing else."""

import json
from pathlib import Path

import pytest

from influcoder_assets import sources
from influcoder_assets.maker import current_facts
from influcoder_assets.sources import FileHashes, look_at, of_shard
from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from tests.assets import tiny_home
from tests.assets.changes import check_refresh, reasons
from tests.assets.tiny_home import SHARDS

MEMORIES = ("", "{", "[]", "null", "{}", '{"form": 99, "remembered": {}}', "\x00")


@pytest.mark.parametrize("memory", [*MEMORIES, "as it was before it had a form"])
def test_a_memory_that_is_damaged_or_of_another_version_is_forgotten(tmp_path: Path, memory: str):
    file, path = tmp_path / "a.jsonl", tmp_path / "file_hashes.json"
    file.write_text("text")
    status = file.stat()
    wrong = {str(file): [status.st_size, status.st_mtime_ns, "0" * 32]}
    path.write_text(memory if memory in MEMORIES else json.dumps(wrong))
    hashes = FileHashes(path)
    assert hashes.of(file) == fingerprint.of_file(file)
    hashes.save()
    assert FileHashes(path)._known == {
        str(file): [status.st_size, status.st_mtime_ns, fingerprint.of_file(file)]
    }


@pytest.mark.parametrize(
    "name", ["queries/rude.jsonl", "queries/known_good.jsonl", "models/encoder/model.safetensors"]
)
def test_a_file_that_cannot_be_read_is_named_by_the_plan(
    new_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Whoever runs the tests may be allowed to read everything, so the refusal is pretended."""
    whole = fingerprint.of_file

    def refuse(path: Path) -> str:
        if path == new_home / name:
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(fingerprint, "of_file", refuse)
    with pytest.raises(DataError, match="A file cannot be read: Permission denied") as caught:
        tiny_home.plan(new_home)
    assert caught.value.where == str(new_home / name)


def test_a_shard_that_cannot_be_read_stops_no_plan(new_home: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    workspace = Workspace.open(new_home)
    monkeypatch.setattr(fingerprint, "of_file", refuse)
    assert of_shard(workspace, workspace.shards["a.jsonl"]) == "unreadable: Permission denied"


@pytest.fixture
def reviewed(refreshed_home: Path, change_settings) -> Path:
    """A refreshed home with a reviewer's list that was not looked at yet and concerns no shard."""
    (refreshed_home / "reviewed.csv").write_text("sample_id,decision,note\n")
    change_settings(refreshed_home, "overrides", "reviewed.csv")
    return refreshed_home


def stored_samples(home: Path, shard: str) -> Path:
    store = Workspace.open(home).store
    return store.path(store.require("corpus", shard), "samples.parquet")


def test_stored_samples_that_are_lost_are_made_anew_with_a_reviewers_list_too(reviewed: Path):
    stored_samples(reviewed, "a.jsonl").unlink()
    cut_off = stored_samples(reviewed, "c.parquet")
    cut_off.write_bytes(cut_off.read_bytes()[:-20])
    lost = ("a.jsonl", "c.parquet")
    found = reasons(reviewed)
    assert {found["corpus", shard] for shard in lost} == {"its files are damaged"}
    check_refresh(reviewed, {*(("corpus", shard) for shard in lost), ("curation_report", None)})


def test_a_list_is_parsed_once_however_often_the_shards_are_looked_at(
    reviewed: Path, monkeypatch: pytest.MonkeyPatch
):
    parsed, written = [], []
    read, remember = sources.read_overrides, sources._remember
    monkeypatch.setattr(sources, "read_overrides", lambda p: parsed.append(p) or read(p))
    monkeypatch.setattr(
        sources, "_remember", lambda p, what: written.append(p.name) or remember(p, what)
    )
    workspace = Workspace.open(reviewed)
    facts = current_facts(workspace)
    for _ in range(2):
        seen = {shard: look_at(workspace, "overrides", shard) for shard in SHARDS}
        assert seen == facts.shard_sources["overrides"]
    assert (len(parsed), written.count("reviewed_shards.json")) == (1, 1)
    (reviewed / "reviewed.csv").write_text("sample_id,decision,note\nno id,drop,\n")
    assert look_at(workspace, "overrides", "a.jsonl").startswith("unreadable ")
    assert len(parsed) == 2
