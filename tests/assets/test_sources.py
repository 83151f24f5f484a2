"""What is remembered between runs costs time when it is lost, and nothing else."""

import json
from pathlib import Path

import pytest

from influcoder_assets.sources import FileHashes
from influcoder_lib import fingerprint

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
