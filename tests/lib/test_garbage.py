"""What is garbage, given manifests; and that nothing else goes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from influcoder_lib.errors import StoreError
from influcoder_lib.garbage import Garbage, find_garbage, remove, superseded
from influcoder_lib.location import remote_of
from influcoder_lib.store import Manifest, Recipe, Store

OLD, YOUNG, SINCE = "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"


def made(
    asset: str, number: int, created: str = OLD, content: str = "", inputs=None, **summary
) -> Manifest:
    recipe = Recipe(inputs or {}, {}, "1")
    content = content or f"{asset}{number}"
    return Manifest(asset, "a", content, recipe, {}, 0, summary, created, "run", number)


def gone(*history: Manifest, encoders=(None,)) -> list[int]:
    """Numbers of the versions of one artifact whose files nobody needs."""
    return [each.number for each in superseded([history], SINCE, encoders)]


def test_past_versions_go_and_the_one_in_force_stays_however_old():
    assert gone(made("corpus", 1), made("corpus", 2), made("corpus", 3)) == [1, 2]
    assert gone(made("corpus", 1)) == []
    assert gone() == []


def test_young_versions_stay():
    assert gone(made("corpus", 1), made("corpus", 2, YOUNG), made("corpus", 3, YOUNG)) == [1]


def test_a_past_version_with_the_content_of_one_that_stays_has_the_same_files():
    history = [made("corpus", 1, content="x"), made("corpus", 2), made("corpus", 3, content="x")]
    assert gone(*history) == [2]


@pytest.mark.parametrize("asset", ["filtered_dataset", "decision_rule", "query_embeddings"])
def test_decisions_and_what_explains_them_stay(asset):
    assert gone(made(asset, 1), made(asset, 2)) == []


def test_embeddings_that_a_decision_was_made_with_stay():
    embeddings = [made("corpus_embeddings", number) for number in (1, 2, 3)]
    inputs = {"corpus_embeddings/a": "corpus_embeddings1"}
    decided = [made("filtered_dataset", 1, inputs=inputs)]
    found = superseded([embeddings, decided], SINCE, [])
    assert [each.number for each in found] == [2]


@pytest.mark.parametrize("asset", ["champion_encoder", "influence_encoder"])
def test_encoders_that_may_be_used_again_stay(asset):
    history = [made(asset, number, version=str(number)) for number in (1, 2, 3)]
    assert gone(*history, encoders=["2", None]) == [1]
    untrained = [made(asset, 1, version=None), made(asset, 2, version="1")]
    assert gone(*untrained, encoders=[None]) == []


Stores = Callable[[str], Store]


@pytest.fixture(params=["alone", "shared"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """A store by its name; two of them share a location or have nothing to do with each other."""

    def opened(name: str) -> Store:
        address = f"file://{tmp_path}/location" if request.param == "shared" else None
        remote = remote_of(tmp_path / name, address, {})
        remote.catch_up()
        return Store(tmp_path / name, remote)

    return opened


def publish(store: Store, text: str) -> Manifest:
    with store.publish("corpus", "a", Recipe({"text": text}, {}, "1"), "run") as draft:
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "rows.txt").write_text(text)
    return store.require("corpus", "a")


def tidy(store: Store) -> Garbage:
    found = find_garbage(store, -1, [None])
    remove(store, found)
    return found


def test_files_of_past_versions_go_and_their_manifests_stay(stores):
    store = stores("one")
    past, now = publish(store, "past"), publish(store, "now")
    found = tidy(store)
    assert found.versions == (past,)
    assert sum(found.here.values()) == 4
    assert store.history("corpus", "a") == [past, now]
    assert store.path(now, "deep/rows.txt").read_text() == "now"
    assert not store.place(past).exists()
    with pytest.raises(StoreError, match="is missing") as caught:
        store.path(past, "deep/rows.txt")
    assert "gc" in caught.value.fix
    assert tidy(store) == Garbage({}, {}, ())


def test_what_was_removed_at_the_location_is_missing_everywhere(stores, tmp_path):
    one = stores("one")
    past, _ = publish(one, "past"), publish(one, "now")
    tidy(one)
    assert list(tmp_path.rglob(f"{past.fingerprint}/**/rows.txt")) == []
    again = publish(one, "past")
    assert again.fingerprint == past.fingerprint
    assert one.path(again, "deep/rows.txt").read_text() == "past"


def test_what_was_made_again_since_it_was_found_stays(stores, tmp_path):
    one = stores("one")
    publish(one, "past"), publish(one, "now")
    past, other, now = publish(one, "past"), publish(one, "other"), publish(one, "now")
    found = find_garbage(one, -1, [None])
    assert {made.fingerprint for made in found.versions} == {past.fingerprint, other.fingerprint}
    again = publish(stores("one"), "past")
    went = remove(one, found)
    assert {made.fingerprint for made in went.versions} == {other.fingerprint}
    assert sum(went.here.values()) == len("other")
    assert one.path(again, "deep/rows.txt").read_text() == "past"
    assert list(tmp_path.rglob(f"{other.fingerprint}/**/rows.txt")) == []
    if one.remote.stamps("manifests"):
        assert stores("two").path(again, "deep/rows.txt").read_text() == "past"
        assert stores("two").history("corpus", "a")[-1] == again != now


def test_looking_removes_nothing(stores):
    store = stores("one")
    past, _ = publish(store, "past"), publish(store, "now")
    assert find_garbage(store, -1, [None]).versions == (past,)
    assert store.path(past, "deep/rows.txt").read_text() == "past"
    assert find_garbage(store, 30, [None]) == Garbage({}, {}, ())


def test_what_a_killed_process_left_of_a_file_goes_from_an_artifact_that_stays(stores, tmp_path):
    store = stores("one")
    made = publish(store, "now")
    left, young = (store.place(made) / f"deep/.rows.txt.{n:08x}-1-00000000.part" for n in (1, 2))
    for path in (left, young):
        path.write_text("half")
    before = time.time() - 25 * 3600
    for path in (left, store.place(made) / "deep/rows.txt"):
        os.utime(path, (before, before))
    assert tidy(store).here == {left: 4}
    assert young.exists()
    assert store.path(made, "deep/rows.txt").read_text() == "now"


@pytest.mark.parametrize("stores", ["shared"], indirect=True)
def test_what_a_killed_sender_left_at_a_mounted_location_goes_a_day_later(stores, tmp_path):
    store = stores("one")
    made = publish(store, "now")
    there = tmp_path / "location" / store.place(made).relative_to(store.root)
    left, young = (there / f"deep/.rows.txt.{n:08x}-1-00000000.part" for n in (1, 2))
    manifest = tmp_path / "location/manifests/.000002.json.00000001-1-00000000.part"
    for path in (left, young, manifest):
        path.write_text("half")
    before = time.time() - 25 * 3600
    for path in (left, manifest, there / "deep/rows.txt"):
        os.utime(path, (before, before))
    assert sum(tidy(store).there.values()) == 8
    assert {path.name for path in tmp_path.rglob(".*.part")} == {young.name}
    assert (there / "deep/rows.txt").read_text() == "now"


def test_files_of_no_manifest_go_a_day_later(stores, tmp_path):
    store = stores("one")
    publish(store, "now")
    part = ".{}.00000000-1-00000000.part/rows.txt"
    left = [
        store.root / "artifacts/corpus/a/0123/rows.txt",
        store.root / "rows/embeddings/key" / part.format("vectors"),
        store.root / "staging" / part.format("corpus"),
    ]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_text("left behind")
    store.remote.send(left[:1])
    assert find_garbage(store, 0, [None]) == Garbage({}, {}, ())
    before = time.time() - 25 * 3600
    for path in tmp_path.rglob("rows.txt"):
        os.utime(path, (before, before))
    found = tidy(store)
    assert sorted(found.here) == left
    assert {path.read_text() for path in tmp_path.rglob("rows.txt")} == {"now"}
    assert {path.parent.parent.name for path in tmp_path.rglob("rows.txt")} == {
        store.require("corpus", "a").fingerprint
    }
    assert not (store.root / "staging").exists()
