"""Artifacts and manifests: published whole or not at all, never overwritten, checked when read."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from influcoder_lib import atomic, fingerprint, remote, store
from influcoder_lib.errors import DamageError, StoreError
from influcoder_lib.store import Manifest, Recipe, Store

RECIPE = Recipe({"corpus/a": "1" * 32}, {"window": 48, "seeds": [0, 1]}, "1")


@pytest.fixture
def data(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def publish(
    data: Store,
    text: str = "text",
    asset: str = "corpus",
    shard: str | None = "a.jsonl",
    recipe: Recipe = RECIPE,
) -> Manifest:
    with data.publish(asset, shard, recipe, "run") as draft:
        (draft.folder / "rows.txt").write_text(text)
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "more.txt").write_text("more")
        draft.rows = len(text)
        draft.summary["text"] = text
    return data.require(asset, shard)


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_is_published_is_read_back(data):
    manifest = publish(data)
    assert data.path(manifest, "rows.txt").read_text() == "text"
    assert data.path(manifest, "deep/more.txt").read_text() == "more"
    assert below(data.folder(manifest)) == ["deep/more.txt", "rows.txt"]
    assert (manifest.asset, manifest.shard, manifest.number) == ("corpus", "a.jsonl", 1)
    assert (manifest.rows, manifest.summary) == (4, {"text": "text"})
    assert manifest.recipe == RECIPE
    assert manifest.bytes == 8
    assert manifest.files["rows.txt"] == (4, fingerprint.of_bytes(b"text"))
    assert below(data.root / "staging") == []


def test_nothing_is_there_before_it_is_published(data):
    with data.publish("corpus", None, RECIPE, "run") as draft:
        (draft.folder / "rows.txt").write_text("text")
        assert data.current("corpus") is None
        assert not (data.root / "artifacts").exists()
    assert data.current("corpus") is not None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_the_block_publishes_nothing_and_leaves_nothing(data, error):
    first = publish(data)
    before = below(data.root)

    def fail() -> None:
        with data.publish("corpus", "a.jsonl", RECIPE, "run") as draft:
            (draft.folder / "rows.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert below(data.root) == before
    assert data.current("corpus", "a.jsonl") == first


def test_an_end_before_the_manifest_leaves_the_old_artifact_in_force(data, monkeypatch):
    first = publish(data)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote, "write_new", full)
    with pytest.raises(StoreError, match="No space left"):
        publish(data, "other")
    monkeypatch.undo()
    assert data.history("corpus", "a.jsonl") == [first]
    assert data.path(first, "rows.txt").read_text() == "text"
    assert publish(data, "other").number == 2


def test_manifests_are_numbered_and_never_overwritten(data):
    made = [publish(data, text) for text in ("one", "two", "one")]
    assert [manifest.number for manifest in made] == [1, 2, 3]
    assert data.history("corpus", "a.jsonl") == made
    assert data.current("corpus", "a.jsonl") == made[-1]
    assert [data.path(each, "rows.txt").read_text() for each in made] == ["one", "two", "one"]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint
    names = [path.name for path in sorted((data.root / "manifests").rglob("*.json"))]
    assert names == ["000001.json", "000002.json", "000003.json"]


def test_the_tenth_manifest_comes_after_the_ninth(data):
    made = [publish(data, str(n)) for n in range(12)]
    assert data.current("corpus", "a.jsonl") == made[-1]
    assert [manifest.summary["text"] for manifest in data.history("corpus", "a.jsonl")] == [
        str(n) for n in range(12)
    ]


def test_assets_and_shards_are_apart(data):
    made = {
        key: publish(data, str(key), *key)
        for key in (("corpus", "a"), ("corpus", "b"), ("corpus", None), ("scores", "a"))
    }
    for (asset, shard), manifest in made.items():
        assert data.current(asset, shard) == manifest
    assert data.shards("corpus") == ["a", "b"]
    assert data.shards("nothing") == []
    assert data.history("nothing") == []
    assert data.current("scores", "b") is None


def test_equal_content_has_one_fingerprint_whatever_the_recipe(data):
    first = publish(data)
    other = publish(data, recipe=Recipe({}, {}, "2"))
    assert first.fingerprint == other.fingerprint
    assert first.recipe.fingerprint != other.recipe.fingerprint


def test_an_artifact_that_was_never_made_is_an_error_that_says_how(data):
    with pytest.raises(StoreError) as caught:
        data.require("scores", "a.jsonl")
    assert "scores/a.jsonl has not been made yet." in str(caught.value)
    assert "materialise scores first" in str(caught.value)


def damage(path: Path) -> None:
    path.write_text("TEXT")


def shorten(path: Path) -> None:
    path.write_text("te")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [(damage, "is damaged"), (shorten, "is damaged"), (Path.unlink, "is missing")],
)
def test_a_harmed_file_is_an_error_and_damage_until_the_artifact_is_made_anew(data, harm, problem):
    publish(data, "text of before")
    manifest = publish(data)
    assert data.damage() == {}
    path = data.path(manifest, "rows.txt")
    harm(path)
    with pytest.raises(DamageError, match="run again") as caught:
        data.path(manifest, "rows.txt")
    assert f"rows.txt of corpus/a.jsonl {problem}" in str(caught.value)
    assert caught.value.where == str(path)
    with pytest.raises(DamageError, match=problem):
        data.folder(manifest)
    assert data.damage() == {("corpus", "a.jsonl"): str(caught.value)}
    assert data.current("corpus", "a.jsonl") == manifest
    assert data.path(publish(data), "rows.txt").read_text() == "text"
    assert data.damage() == {}
    assert data.path(manifest, "deep/more.txt").read_text() == "more"


def test_a_past_artifact_whose_files_are_gone_stays_on_record(data):
    past, present = publish(data), publish(data, "other text")
    (data.place(past) / "rows.txt").unlink()
    with pytest.raises(DamageError, match="is missing") as caught:
        data.path(past, "rows.txt")
    assert "gc" in caught.value.fix
    assert data.damage() == {}
    assert data.history("corpus", "a.jsonl") == [past, present]


def test_verifying_tells_what_is_damaged_and_leaves_it_in_force(data):
    publish(data)
    second = publish(data, "other text")
    assert data.verify("corpus", "a.jsonl") == []
    damage(data.place(second) / "rows.txt")
    for _ in range(2):
        (said,) = data.verify("corpus", "a.jsonl")
        assert "rows.txt of corpus/a.jsonl is damaged" in said
    assert data.current("corpus", "a.jsonl") == second
    assert list(data.damage().values()) == [said]
    publish(data)
    assert data.verify("corpus", "a.jsonl") == []


def test_what_was_published_while_damage_was_found_is_not_damaged(data):
    manifest = publish(data)
    path = data.place(manifest) / "rows.txt"
    damage(path)
    record = data.root / "damage" / "corpus" / "a.jsonl.json"
    with pytest.raises(DamageError):
        data.path(manifest, "rows.txt")
    late = record.read_bytes()
    publish(data, "other text")
    record.write_bytes(late)
    assert data.damage() == {}


_RECIPE = {"inputs": {}, "settings": {}, "code_version": "1"}
_NO_FILES = {"schema": 1, "recipe": _RECIPE, "files": []}
UNREADABLE = ["", "{", "[]", "{}", '{"schema": 1}', "\udcff", json.dumps(_NO_FILES)]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_manifest_in_force_that_cannot_be_read_is_set_aside_and_damage(data, text):
    past, present = publish(data), publish(data, "other text")
    path = data.root / "manifests/corpus/a.jsonl/000002.json"
    path.write_text(text, errors="surrogateescape")
    assert data.current("corpus", "a.jsonl") == past
    assert data.require("corpus", "a.jsonl") == past
    (said,) = data.damage().values()
    assert "This manifest cannot be read" in said
    assert str(path) in said
    assert data.history("corpus", "a.jsonl") == [past]
    aside = path.with_name("000002.json.unreadable")
    assert aside.read_text(errors="surrogateescape") == text
    again = publish(data, "other text")
    assert (again.number, again.fingerprint) == (3, present.fingerprint)
    assert data.damage() == {}
    assert data.history("corpus", "a.jsonl") == [past, again]


def test_if_no_manifest_can_be_read_the_artifact_was_never_made(data):
    for text in ("text", "other text"):
        publish(data, text)
    for path in (data.root / "manifests").rglob("*.json"):
        path.write_text("{")
    assert data.current("corpus", "a.jsonl") is None
    assert data.damage() == {}
    assert publish(data).number == 3


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_manifest_of_before_that_cannot_be_read_is_an_error_until_it_is_set_aside(data, text):
    publish(data)
    present = publish(data, "other text")
    path = data.root / "manifests/corpus/a.jsonl/000001.json"
    path.write_text(text, errors="surrogateescape")
    assert data.current("corpus", "a.jsonl") == present
    with pytest.raises(DamageError, match="This manifest cannot be read") as caught:
        data.history("corpus", "a.jsonl")
    assert caught.value.where == str(path)
    assert "plan --verify" in caught.value.fix
    assert data.verify("corpus", "a.jsonl") == [str(caught.value)]
    assert data.history("corpus", "a.jsonl") == [present]
    assert data.damage() == {}


@pytest.mark.parametrize(
    ("schema", "said", "fix"),
    [
        (99, "a newer version of influcoder, with schema 99", "install that version"),
        (0, "an older version of influcoder, with schema 0", "start a new home"),
    ],
)
def test_a_manifest_of_another_schema_is_an_error_that_says_which(data, schema, said, fix):
    publish(data)
    path = next((data.root / "manifests").rglob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(StoreError) as caught:
        data.current("corpus", "a.jsonl")
    assert said in str(caught.value)
    assert "schema 1" in caught.value.allowed
    assert fix in caught.value.fix


def test_a_data_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError) as caught:
        publish(Store(tmp_path / "file" / "data"))
    assert "The data folder cannot be written: Not a directory." in str(caught.value)
    assert caught.value.where == str(tmp_path / "file" / "data")
    assert "write access" in caught.value.fix


def test_a_data_folder_without_permission_is_an_error(data, monkeypatch):
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(StoreError, match="The data folder cannot be written: Permission denied"):
        publish(data)


def test_a_failure_is_on_record_until_it_is_made_good(data):
    assert data.failures() == {}
    data.record_failure("corpus", "a.jsonl", RECIPE, "it was bad")
    data.record_failure("report", None, RECIPE, "worse")
    key = ("corpus", "a.jsonl")
    assert data.failures() == {
        key: (RECIPE.fingerprint, "it was bad"),
        ("report", None): (RECIPE.fingerprint, "worse"),
    }
    other = Recipe({}, {}, "2")
    data.record_failure("corpus", "a.jsonl", other, "still bad")
    assert data.failures()[key] == (other.fingerprint, "still bad")
    publish(data)
    assert list(data.failures()) == [("report", None)]
    data.forget_failures()
    assert data.failures() == {}


def test_what_the_making_settled_is_in_the_recipe(data):
    with data.publish("corpus", "a.jsonl", RECIPE, "run") as draft:
        draft.settled["source:alias"] = "after"
    made = data.require("corpus", "a.jsonl")
    assert made.recipe.inputs == {**RECIPE.inputs, "source:alias": "after"}


def test_two_that_publish_at_once_both_get_a_number(data, monkeypatch):
    with data.publish("corpus", "a.jsonl", RECIPE, "slow") as draft:
        (draft.folder / "rows.txt").write_text("slow")
        next_number = store.next_number
        # The other one publishes just after this one has looked for a free number.
        monkeypatch.setattr(store, "next_number", lambda folder: publish_first(folder))

        def publish_first(folder: Path) -> int:
            monkeypatch.setattr(store, "next_number", next_number)
            free = next_number(folder)
            publish(data, "fast")
            return free

    texts = [data.path(each, "rows.txt").read_text() for each in data.history("corpus", "a.jsonl")]
    assert texts == ["fast", "slow"]
    assert [each.number for each in data.history("corpus", "a.jsonl")] == [1, 2]


def test_two_that_publish_the_same_at_once_have_one_artifact(data, monkeypatch):
    rename = Path.rename

    def publish_first(path: Path, home: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        with data.publish("corpus", "a.jsonl", RECIPE, "fast") as other:
            (other.folder / "rows.txt").write_text("same")
        return rename(path, home)

    with data.publish("corpus", "a.jsonl", RECIPE, "slow") as draft:
        (draft.folder / "rows.txt").write_text("same")
        # The other one publishes at the very instant at which this one moves its files.
        monkeypatch.setattr(Path, "rename", publish_first)

    fast, slow = data.history("corpus", "a.jsonl")
    assert fast.fingerprint == slow.fingerprint
    assert data.path(slow, "rows.txt").read_text() == "same"
    assert list((data.root / "staging").iterdir()) == []


@pytest.mark.parametrize("where", ["staging", "rows"])
def test_what_is_left_half_written_goes_when_the_next_refresh_begins(data, where):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    mine = atomic.part_of(data.root / where / "x")
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    left.mkdir(parents=True)
    with data.attended() as removed:
        assert removed == (where == "staging")
    # So it looks after a refresh that was killed.
    (data.root / "unfinished").touch()
    with data.attended() as removed:
        assert removed == (where == "rows")
    assert not left.exists()


def test_a_tombstone_stands_until_the_shard_is_there_again(data):
    assert data.tombstones() == {}
    data.bury("a.jsonl")
    data.bury("sub.b.csv")
    assert list(data.tombstones()) == ["a.jsonl", "sub.b.csv"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", gone) for gone in data.tombstones().values())
    data.revive("a.jsonl")
    data.revive("never.buried")
    assert list(data.tombstones()) == ["sub.b.csv"]


def test_a_recipe_is_its_content_whatever_the_order_or_the_kind_of_list():
    same = Recipe({"corpus/a": "1" * 32}, {"seeds": (0, 1), "window": 48}, "1")
    assert same.fingerprint == RECIPE.fingerprint
    others = [
        Recipe({}, RECIPE.settings, "1"),
        Recipe(RECIPE.inputs, {"window": 49}, "1"),
        Recipe(RECIPE.inputs, RECIPE.settings, "2"),
    ]
    assert len({RECIPE.fingerprint, *(other.fingerprint for other in others)}) == 4
