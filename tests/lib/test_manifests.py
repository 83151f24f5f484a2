"""Manifests in force: remembered between processes, and never against what is on the disk."""

import os
import time
from pathlib import Path

import pytest

from influcoder_lib import manifests
from influcoder_lib.errors import StoreError
from influcoder_lib.manifests import ManifestsInForce
from influcoder_lib.store import Recipe, Store

LONG_AGO = 10**18


@pytest.fixture
def data(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def publish(data: Store, text: str, shard: str = "a", when: int = LONG_AGO) -> None:
    """Publish an artifact as if at another time (ns)."""
    with data.publish("corpus", shard, Recipe({}, {"deep": {"n": 1}}, "1"), "run") as draft:
        (draft.folder / "text").write_text(text)
        draft.summary["text"] = text
    folder = data.root / "manifests" / "corpus" / shard
    for path in (*folder.iterdir(), folder):
        os.utime(path, ns=(when, when))


def text(known: ManifestsInForce, shard: str = "a") -> str | None:
    found = known.of(f"corpus/{shard}")
    return found.summary["text"] if found else None


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch):
    """From the call on, no manifest is read from its own file."""

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    return lambda: monkeypatch.setattr(manifests, "read_manifest", refuse)


def test_what_was_saved_needs_no_reading_and_is_the_same(data, no_reading):
    for shard in "ab":
        publish(data, f"of {shard}", shard)
    first = ManifestsInForce(data.root)
    before = [first.of(f"corpus/{shard}") for shard in "ab"]
    first.save()
    no_reading()
    again = ManifestsInForce(data.root)
    assert [again.of(f"corpus/{shard}") for shard in "ab"] == before
    assert text(first) == "of a"
    assert again.of("corpus/c") is None


def test_a_manifest_published_since_comes_into_force_and_one_deleted_goes(data):
    publish(data, "one")
    known = ManifestsInForce(data.root)
    assert text(known) == "one"
    publish(data, "two", when=LONG_AGO + 1)
    assert text(known) == "two"
    known.save()
    assert text(ManifestsInForce(data.root)) == "two"
    (data.root / "manifests/corpus/a/000002.json").unlink()
    assert text(known) == text(ManifestsInForce(data.root)) == "one"


def test_a_manifest_put_in_the_place_of_another_is_seen_by_its_time(data):
    publish(data, "one")
    known = ManifestsInForce(data.root)
    assert text(known) == "one"
    path = data.root / "manifests/corpus/a/000001.json"
    path.write_text(path.read_text().replace("one", "two"))
    assert text(known) == "two"


def test_what_changed_just_now_is_not_remembered_as_it_may_change_again_unseen(data):
    now = time.time_ns()
    publish(data, "one", when=now)
    known = ManifestsInForce(data.root)
    assert text(known) == "one"
    known.save()
    # Within one tick of the file system's clock.
    publish(data, "two", when=now)
    assert text(known) == text(ManifestsInForce(data.root)) == "two"


@pytest.mark.parametrize("harm", ["{", "[]\n", '["corpus/a",1,"000001.json",1,{}]\n', "\x00"])
def test_a_damaged_memory_is_forgotten(data, harm):
    publish(data, "one")
    known = ManifestsInForce(data.root)
    assert text(known) == "one"
    known.save()
    (memory,) = data.root.glob("*.jsonl")
    with memory.open("a") as stream:
        stream.write(harm)
    again = ManifestsInForce(data.root)
    assert text(again) == "one"
    again.save()
    assert text(ManifestsInForce(data.root)) == "one"


def test_what_a_version_with_another_schema_remembered_is_not_taken(data):
    publish(data, "one")
    known = ManifestsInForce(data.root)
    assert text(known) == "one"
    known.save()
    (memory,) = data.root.glob("*.jsonl")
    memory.write_text(memory.read_text().replace('"schema":1', '"schema":2'))
    path = data.root / "manifests/corpus/a/000001.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    for each in (path, path.parent):
        os.utime(each, ns=(LONG_AGO, LONG_AGO))
    manifests._parse.cache_clear()
    with pytest.raises(StoreError, match="a newer version of influcoder"):
        ManifestsInForce(data.root).of("corpus/a")


def test_the_memory_does_not_grow_with_what_happened(data):
    for shard in "abcd":
        publish(data, "one", shard)
    known = ManifestsInForce(data.root)
    for number in range(20):
        publish(data, f"more {number}", when=LONG_AGO + number)
        assert [text(known, shard) for shard in "bcd"] == ["one"] * 3
        assert text(known) == f"more {number}"
        known.save()
    (memory,) = data.root.glob("*.jsonl")
    assert len(memory.read_text().splitlines()) <= 2 * 4
    assert text(ManifestsInForce(data.root)) == "more 19"


@pytest.mark.parametrize(
    ("key", "name"), [(("report", None), "report"), (("corpus", "a.b.jsonl"), "corpus/a.b.jsonl")]
)
def test_an_artifact_is_found_again_by_its_name(key, name):
    assert manifests.label(key) == name
    assert manifests.key_of(name) == key
    assert manifests.source_of(name) is None
    assert manifests.source_of(manifests.source_input(name)) == name
