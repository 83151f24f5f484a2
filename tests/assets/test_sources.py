"""What is remembered between runs costs time when it is lost, and nothing else."""

import json
from pathlib import Path

import pytest

from influcoder_assets.sources import FileHashes, of_shard
from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from tests.assets import tiny_home

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
