"""Small records: they stand until they are dropped, and one that cannot be read is none."""

from pathlib import Path

import pytest

from influcoder_lib.records import Records
from influcoder_lib.remote import ALONE


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path, "failures", ALONE)


def test_a_record_stands_until_it_is_dropped_or_another_takes_its_place(records):
    records.put("corpus/b.jsonl", number="1", message="bad")
    records.put("corpus/a.jsonl", number="2", message="bad too")
    records.put("corpus/b.jsonl", number="3", message="worse")
    assert records.having("number", "message") == {
        "corpus/a.jsonl": {"number": "2", "message": "bad too"},
        "corpus/b.jsonl": {"number": "3", "message": "worse"},
    }
    assert list(records.having("number")) == ["corpus/a.jsonl", "corpus/b.jsonl"]
    assert records.having("number", "what no record has") == {}
    records.drop(["corpus/b.jsonl", "never/there"])
    assert list(records.having("number")) == ["corpus/a.jsonl"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe": "1"}', b"\0", b"\xff"])
def test_a_record_that_cannot_be_read_is_none(records, tmp_path, content):
    for name in ("corpus/a", "b"):
        records.put(name, recipe="1", message="bad")
    (tmp_path / "failures" / "corpus" / "a.json").write_bytes(content)
    assert list(records.having("recipe", "message")) == ["b"]


def test_another_kind_has_records_of_its_own(records, tmp_path):
    records.put("a", message="bad")
    assert Records(tmp_path, "tombstones", ALONE).having("message") == {}
