"""Two machines at one location: what one publishes the other has, whole, or not at all."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from influcoder_lib.errors import StoreError
from influcoder_lib.location import Location, copied_from, remote_of
from influcoder_lib.remote import ALONE
from influcoder_lib.rows import RowStore
from influcoder_lib.store import Manifest, Recipe, Store
from tests import s3
from tests.lib.test_rows import ids, vectors
from tests.s3 import SECRET, Place

RECIPE = Recipe({"corpus/a": "1" * 32}, {"window": 48}, "1")
KEY = ("corpus", "a.jsonl")
DAMAGED = r"rows\.txt of corpus/a\.jsonl is damaged"

Machine = Callable[[str], Store]


@pytest.fixture(params=["s3", "a mounted folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return Place(f"file://{tmp_path}/mounted", {})


@pytest.fixture
def machine(place: Place, tmp_path: Path) -> Machine:
    """A machine by its name, with what it sees at the location now."""

    def opened(name: str) -> Store:
        remote = remote_of(tmp_path / name, place.address, place.options)
        remote.catch_up()
        return Store(tmp_path / name, remote)

    return opened


def publish(store: Store, text: str = "text") -> Manifest:
    with store.publish(*KEY, RECIPE, "run") as draft:
        (draft.folder / "rows.txt").write_text(text)
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "more.txt").write_text("more")
    return store.require(*KEY)


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_one_machine_publishes_is_in_force_on_the_other(machine):
    made = publish(machine("one"))
    two = machine("two")
    assert two.require(*KEY) == made
    assert two.path(made, "rows.txt").read_text() == "text"


def test_files_come_when_they_are_asked_for(machine):
    made = publish(machine("one"))
    two = machine("two")
    assert not two.place(made).exists()
    two.bring([(made, "rows.txt")])
    assert below(two.place(made)) == ["rows.txt"]
    assert below(two.folder(made)) == ["deep/more.txt", "rows.txt"]


def test_every_version_comes_and_what_is_here_is_not_asked_for_again(machine, monkeypatch):
    one, two = machine("one"), machine("two")
    made = [publish(one, text) for text in ("one", "two")]
    fetched: list[Path] = []
    monkeypatch.setattr(Location, "_fetch", watched(Location._fetch, fetched))
    two.remote.catch_up()
    assert two.history(*KEY) == made
    assert len(fetched) == 2
    two.remote.catch_up()
    assert len(fetched) == 2


def watched(act: Callable[[Location, Path], None], seen: list[Path]):
    def watching(location: Location, path: Path) -> None:
        seen.append(path)
        act(location, path)

    return watching


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_end_between_files_and_manifest_publishes_nothing(machine, monkeypatch, error):
    one = machine("one")
    first = publish(one)

    def killed(*_: object) -> bool:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Location, "create", killed)
        with pytest.raises(error):
            publish(one, "other")
    assert one.history(*KEY) == machine("two").history(*KEY) == [first]
    assert publish(one, "other").number == 2
    assert len(machine("two").history(*KEY)) == 2


def test_who_looks_while_a_file_is_sent_sees_none_of_it(tmp_path, monkeypatch):
    seen: list[list[str]] = []
    copy = LocalFileSystem.put_file

    def slowly(system, source, target, **options):
        copy(system, source, target, **options)
        Path(target).write_bytes(Path(source).read_bytes()[:2])
        seen.append([path.name for path in other.stamps("artifacts")])
        copy(system, source, target, **options)

    address = f"file://{tmp_path}/mounted"
    one, other = (Location(tmp_path / name, address) for name in ("one", "other"))
    monkeypatch.setattr(LocalFileSystem, "put_file", slowly)
    path = tmp_path / "one" / "artifacts" / "corpus" / "rows.txt"
    path.parent.mkdir(parents=True)
    path.write_text("all of it")
    one.send([path])
    assert seen == [[]]
    assert below(tmp_path / "mounted") == ["artifacts/corpus/rows.txt"]
    assert (tmp_path / "mounted" / "artifacts/corpus/rows.txt").read_text() == "all of it"


def test_an_end_before_the_manifest_is_here_is_made_up_for_by_a_look(machine, monkeypatch):
    one = machine("one")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("influcoder_lib.location.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(one)
    assert one.history(*KEY) == []
    assert machine("one").require(*KEY) == machine("two").require(*KEY)


def test_two_machines_that_publish_at_once_both_get_a_number(machine):
    one, two = machine("one"), machine("two")
    assert publish(one, "one").number == 1
    with two.publish(*KEY, RECIPE, "run") as draft:
        (draft.folder / "rows.txt").write_text("two")
    for name in ("one", "two", "three"):
        seen = machine(name)
        history = seen.history(*KEY)
        assert [each.number for each in history] == [1, 2]
        texts = [seen.path(each, "rows.txt").read_text() for each in history]
        assert texts == ["one", "two"]


def test_failures_and_tombstones_are_shared_and_taken_back(machine):
    one = machine("one")
    one.record_failure(*KEY, RECIPE, "it was bad")
    one.record_failure("report", None, RECIPE, "worse")
    one.bury("gone.csv")
    two = machine("two")
    assert two.failures() == one.failures()
    assert two.tombstones() == one.tombstones()
    assert list(one.tombstones()) == ["gone.csv"]
    publish(two)
    two.revive("gone.csv")
    again = machine("one")
    assert list(again.failures()) == [("report", None)]
    assert again.tombstones() == {}
    again.forget_failures()
    assert machine("two").failures() == {}


@pytest.mark.parametrize("harm", [lambda path: path.write_text("TEXT"), Path.unlink])
def test_a_harmed_file_is_brought_again(machine, harm):
    store = machine("one")
    made = publish(store)
    harm(store.path(made, "rows.txt"))
    assert store.path(made, "rows.txt").read_text() == "text"


def test_a_manifest_that_cannot_be_read_is_brought_again(machine):
    store = machine("one")
    made = publish(store)
    (store.root / "manifests/corpus/a.jsonl/000001.json").write_text("{")
    assert store.current(*KEY) == made
    assert store.damage() == {}


def test_a_manifest_that_cannot_be_read_there_either_is_damage_on_every_machine(machine):
    store = machine("one")
    past = publish(store)
    publish(store, "other text")
    path = store.root / "manifests/corpus/a.jsonl/000002.json"
    path.write_text("{")
    store.remote.send([path])
    for name in ("two", "three"):
        seen = machine(name)
        assert seen.current(*KEY) == past
        assert list(seen.damage()) == [KEY]
    assert publish(machine("two"), "other text").number == 3
    assert machine("three").damage() == {}


def test_a_file_that_is_damaged_there_is_an_error_here(machine, tmp_path):
    made = publish(machine("one"))
    two = machine("two")
    path = two.place(made) / "rows.txt"
    path.parent.mkdir(parents=True)
    path.write_text("TEXT")
    two.remote.send([path])
    path.unlink()
    with pytest.raises(StoreError, match=DAMAGED):
        two.bring([(made, "rows.txt")])
    assert not path.exists()
    with pytest.raises(StoreError, match=DAMAGED):
        two.path(made, "rows.txt")


def test_vectors_that_one_machine_computed_are_known_to_the_other(machine):
    def rows(name: str) -> RowStore:
        store = machine(name)
        return RowStore(store.root / "rows" / "embeddings" / "key", store.remote)

    first = rows("one")
    first.append(ids(3), vectors(3), np.arange(3) == 1)
    first.refuse({ids(1, "none")[0]: "it is empty"})
    second = rows("two")
    np.testing.assert_array_equal(second.take(ids(3)), vectors(3))
    assert second.truncated(ids(3)) == 1
    assert second.refused == first.refused
    second.append(ids(2, "more"), vectors(2, 1))
    assert len(rows("one")) == 5


def test_vectors_that_could_not_be_sent_are_sent_by_the_next_run(machine, monkeypatch):
    store = machine("one")
    folder = store.root / "rows" / "embeddings" / "key"
    rows = RowStore(folder, store.remote)

    def unreachable(*_: object) -> None:
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "_send", unreachable)
        with pytest.raises(StoreError, match="the network is down"):
            rows.append(ids(3), vectors(3))
    RowStore(folder, store.remote)
    two = machine("two")
    assert len(RowStore(two.root / "rows" / "embeddings" / "key", two.remote)) == 3


def test_what_was_made_before_there_was_a_location_is_published(machine, tmp_path):
    alone = Store(tmp_path / "one")
    made = publish(alone)
    alone.bury("gone.csv")
    machine("one")
    two = machine("two")
    assert two.history(*KEY) == [made]
    assert two.path(made, "deep/more.txt").read_text() == "more"
    assert list(two.tombstones()) == ["gone.csv"]


def test_what_is_wrong_here_stays_on_record_and_damaged_files_are_not_published(machine, tmp_path):
    alone = Store(tmp_path / "one")
    past, made = (publish(alone, text) for text in ("past text", "text"))
    (alone.place(made) / "rows.txt").write_text("TEXT")
    alone.verify(*KEY)
    alone.record_failure("corpus", "b.jsonl", RECIPE, "why")
    damage, failures = alone.damage(), alone.failures()
    assert list(damage) == [KEY]
    two = machine("two")
    for store in (machine("one"), two):
        store.remote.catch_up()
        assert (store.damage(), store.failures()) == (damage, failures)
    assert two.path(past, "rows.txt").read_text() == "past text"
    with pytest.raises(StoreError, match="is missing"):
        two.path(made, "rows.txt")
    publish(machine("one"), "text")
    assert machine("two").path(made, "rows.txt").read_text() == "text"


def test_an_upload_of_all_that_was_killed_goes_on(machine, tmp_path, monkeypatch):
    made = [publish(Store(tmp_path / "one"), text) for text in ("one", "two")]
    create = Location.create

    def killed(location: Location, path: Path, data: bytes) -> bool:
        if path.name == "000002.json":
            raise KeyboardInterrupt
        return create(location, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            machine("one")
    machine("one")
    assert machine("two").history(*KEY) == made


def test_two_histories_are_not_mixed(machine, tmp_path):
    publish(machine("one"))
    publish(Store(tmp_path / "two"), "something else")
    with pytest.raises(StoreError) as caught:
        machine("two")
    assert "000001.json is one thing here and another at the location" in str(caught.value)
    assert "choose an empty location" in caught.value.fix
    shutil.rmtree(tmp_path / "two")
    assert len(machine("two").history(*KEY)) == 1


@pytest.mark.parametrize("other", [None, "s3://another/place"])
def test_a_copy_of_one_location_is_not_taken_for_another(machine, tmp_path, other):
    machine("one")
    with pytest.raises(StoreError, match="is the local copy of") as caught:
        remote_of(tmp_path / "one", other, {})
    marker = Path(caught.value.fix.split("delete ")[1].split(":")[0])
    marker.unlink()
    assert (remote_of(tmp_path / "one", other, {}) is ALONE) == (other is None)


def test_a_name_that_leads_out_of_the_folder_is_refused(machine, tmp_path):
    store = machine("one")
    made = publish(store)
    record = json.loads(next((store.root / "manifests").rglob("*.json")).read_text())
    record["files"]["../../../../../outside.txt"] = [4, "0" * 32]
    store.remote.create(store.root / "manifests/corpus/a.jsonl/000002.json", json_of(record))
    two = machine("two")
    with pytest.raises(StoreError, match="leads out of the data folder"):
        two.folder(two.require(*KEY))
    assert not (tmp_path / "outside.txt").exists()
    assert made.files.keys() == {"rows.txt", "deep/more.txt"}


def json_of(record: dict) -> bytes:
    return json.dumps(record).encode()


def refused(tmp_path: Path) -> Place:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return s3.place(f"http://127.0.0.1:{port}", "bucket")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (refused, "Could not connect to the endpoint URL"),
        (lambda _: Place("nosuch://bucket", {"secret": SECRET}), "Protocol not known: nosuch"),
        (lambda _: Place("s3://bucket", {"secret": SECRET, "nonsense": 1}), "nonsense"),
    ],
    ids=["nobody listens", "unknown protocol", "unknown option"],
)
def test_a_location_that_does_not_answer_is_an_error_that_names_it(tmp_path, wrong, said):
    place = wrong(tmp_path)
    with pytest.raises(StoreError) as caught:
        remote_of(tmp_path / "one", place.address, place.options).catch_up()
    assert said in str(caught.value)
    assert f"{place.address} (storage.location)" in str(caught.value)
    assert "storage.options" in caught.value.fix
    assert SECRET not in str(caught.value)


def test_a_bucket_that_is_not_there_is_an_error_and_is_not_made(s3_url, tmp_path):
    place = s3.place(s3_url, "never-made")
    for _ in range(2):
        with pytest.raises(StoreError, match="bucket does not exist"):
            remote_of(tmp_path / "one", place.address, place.options).catch_up()


def test_no_password_is_in_an_error_or_in_a_representation(bucket, tmp_path, monkeypatch):
    remote = remote_of(tmp_path / "one", bucket.address, bucket.options)

    def quoting(*_: object, **__: object) -> None:
        raise ValueError(f"{SECRET} is not right for {bucket.options['client_kwargs']}")

    monkeypatch.setattr(s3.s3fs.S3FileSystem, "find", quoting)
    with pytest.raises(StoreError) as caught:
        remote.catch_up()
    assert SECRET not in str(caught.value)
    assert "http://127.0.0.1" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert SECRET not in repr(remote)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_folder_that_does_not_say_what_it_is_a_copy_of_is_an_error(tmp_path, text):
    (tmp_path / "copy_of.json").write_text(text)
    with pytest.raises(StoreError, match=r"copy_of\.json"):
        copied_from(tmp_path)
