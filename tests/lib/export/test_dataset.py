"""An export: loadable, complete, verifiable, repeatable, and whole or not there at all."""

import hashlib
import json
import weakref
from pathlib import Path

import pytest

from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.export import dataset
from influcoder_lib.export.dataset import export_dataset
from influcoder_lib.export.tables import SCHEMAS
from influcoder_lib.store import Store
from tests.lib.export.conftest import CORPUS
from tests.lib.export.stored import Stored, Text
from tests.loading import load

STORED = {"default": ("data", "kept"), "dropped": ("dropped", "dropped")}


def expected(stored: Stored, part: str, shards=tuple(CORPUS)) -> list[dict]:
    """Rows of the store in the order of the shards, with the columns that are exported."""
    folder, name = STORED[part]
    return [
        {column: row[column] for column in SCHEMAS[folder]}
        for shard in sorted(shards)
        for row in stored.rows(shard, name)
    ]


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("part", STORED)
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_datasets_loads_exactly_the_rows_of_the_store(export, stored, tmp_path, form, part):
    folder, exported = export(form)
    rows = load(folder, tmp_path / "cache", part)
    assert rows == expected(stored, part)
    assert len(rows) == {"default": exported.kept, "dropped": exported.dropped}[part] == 4


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_where_nothing_was_dropped_the_kept_rows_load_and_there_is_no_dropped_part(
    export, tmp_path, form
):
    folder, exported = export(form, shards=["kept.whole", "none.jsonl"])
    assert exported.dropped == 0
    assert [row["response"] for row in load(folder, tmp_path / "cache")] == ["me"]
    with pytest.raises(ValueError, match="not found"):
        load(folder, tmp_path / "cache", "dropped")


def test_a_text_that_is_a_date_stays_one_in_parquet_and_the_jsonl_card_warns(
    export, stored, tmp_path
):
    stored.shard("date.jsonl", [Text("when", "2024-01-01T00:00:00Z")])
    parquet, _ = export("parquet", shards=["date.jsonl"], name="p")
    jsonl, _ = export("jsonl", shards=["date.jsonl"], name="j")
    assert load(parquet, tmp_path / "cache")[0]["response"] == "2024-01-01T00:00:00Z"
    warning = "if all its texts are dates"
    assert warning in (jsonl / "README.md").read_text()
    assert warning not in (parquet / "README.md").read_text()


def test_a_dropped_row_says_why_and_by_what(export, tmp_path):
    folder, _ = export()
    row = load(folder, tmp_path / "cache", "dropped")[-1]
    assert (row["reason"], row["behavior"], row["best_query"]) == (
        "rude: too high",
        "rude",
        "c" * 32,
    )
    assert (row["rule"], row["threshold"]) == ("unwanted fraction 0.1 on max", 0.25)
    assert (row["encoder"], row["file"], row["row"]) == ("1" * 32, "dropped.whole", 1)
    assert row["score"] == pytest.approx(0.3)
    assert row["percentile"] == pytest.approx(0.9)


def test_every_shard_has_both_files_in_parquet_and_only_files_with_rows_in_jsonl(export):
    parquet, _ = export("parquet", name="p")
    jsonl, _ = export("jsonl", name="j")
    whole = {f"{part}/{shard}.parquet" for part in SCHEMAS for shard in CORPUS}
    assert below(parquet).keys() == whole | {"README.md", "manifest.json"}
    empty = {"data/dropped.whole", "dropped/kept.whole", "data/none.jsonl", "dropped/none.jsonl"}
    written = {name.removesuffix(".parquet") for name in whole} - empty
    assert below(jsonl).keys() == {f"{name}.jsonl" for name in written} | {
        "README.md",
        "manifest.json",
    }


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_the_manifest_has_size_and_sha256_of_every_file_and_the_counts(export, form):
    folder, _ = export(form)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = below(folder)
    for entry in manifest["files"]:
        content = files.pop(entry["path"])
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert files.keys() == {"README.md", "manifest.json"}
    assert sum(entry["rows"] for entry in manifest["files"]) == 8
    totals = {"rows_in": 10, "kept": 4, "dropped": 4, "quarantined": 2}
    assert manifest["counts"] == totals | {"repeated": 0}


def test_kept_samples_that_several_shards_hold_are_all_there_and_counted(export, stored):
    again = [Text("hello", "hi"), Text("who", "me"), Text("insult me", "no", dropped=True)]
    stored.shard("again.jsonl", again)
    folder, exported = export(shards=(*CORPUS, "again.jsonl"))
    assert exported.kept == 6
    assert json.loads((folder / "manifest.json").read_text())["counts"]["repeated"] == 2
    card = " ".join((folder / "README.md").read_text().split())
    assert "of the kept rows, 2 repeat one of another shard" in card


def test_the_manifest_leads_back_to_raw_files_encoder_rules_and_versions(export, stored):
    folder, _ = export()
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["shards"][1]
    filtered = stored.store.require("filtered_dataset", "b.csv")
    assert (shard["shard"], shard["raw_file"]) == ("b.csv", "Raw/b.csv")
    assert (
        shard["raw_fingerprint"]
        == stored.store.require("corpus", "b.csv").recipe.inputs["source:shard"]
    )
    assert shard["filtered_dataset"] == filtered.fingerprint
    assert (shard["rows_in"], shard["kept"], shard["dropped"]) == (3, 1, 2)
    (decider,) = manifest["decided_by"]
    assert (decider["encoder"], decider["version"], decider["mlflow_run"]) == (
        "1" * 32,
        "1",
        "a run",
    )
    assert (decider["target_model"], decider["target_model_hash"]) == ("models/target", "f" * 32)
    assert decider["rules"][0]["threshold"] == 0.25
    assert decider["code_versions"]["filtered_dataset"] == ["1"]
    assert decider["fidelity"] == {"per_query": 0.25, "aggregated": 0.5}
    assert "sample_id" not in decider


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_the_same_state_gives_the_same_bytes_whenever_it_is_exported(export, monkeypatch, form):
    first, _ = export(form, name="first")
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setattr("time.gmtime", lambda *_: pytest.fail("a clock was read"))
    second, _ = export(form, name="second")
    assert below(first) == below(second)


def test_the_date_is_that_of_the_newest_shard(export, stored):
    folder, _ = export()
    newest = max(stored.store.require("filtered_dataset", shard).created for shard in CORPUS)
    assert json.loads((folder / "manifest.json").read_text())["created"] == newest
    assert newest in (folder / "README.md").read_text()


def test_only_the_shards_of_the_corpus_are_exported(export, tmp_path):
    folder, exported = export(shards=["a.jsonl", "kept.whole"])
    assert exported.shards == 2
    assert {row["file"] for row in load(folder, tmp_path / "cache")} == {"a.jsonl", "kept.whole"}
    assert "b.csv" not in (folder / "manifest.json").read_text()


def test_what_failed_is_named_in_manifest_and_card(export):
    folder, _ = export(failed={"corpus/b.csv": "why", "corpus/a.jsonl": "why"})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["failed"] == ["corpus/a.jsonl", "corpus/b.csv"]
    card = (folder / "README.md").read_text()
    assert "**Failed:** when this was exported, 2 parts of the pipeline could not be made" in card
    assert r"corpus\/a\.jsonl, corpus\/b\.csv" in card
    whole, _ = export(name="whole")
    assert json.loads((whole / "manifest.json").read_text())["failed"] == []
    assert "**Failed" not in (whole / "README.md").read_text()


def test_shards_that_are_not_filtered_are_named(export):
    folder, exported = export(shards=[*CORPUS, "new.jsonl"])
    assert exported.not_filtered == ["new.jsonl"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["shards_not_filtered"] == ["new.jsonl"]
    assert "**Incomplete:** without 1 shard of the corpus" in (folder / "README.md").read_text()


def test_an_empty_folder_is_filled(export, tmp_path):
    (tmp_path / "out").mkdir()
    folder, _ = export()
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_nothing_is_written_over(export, tmp_path, what):
    place = tmp_path / "out"
    if what == "folder":
        place.mkdir()
        (place / "mine").write_text("mine")
    elif what == "file":
        place.write_text("mine")
    else:
        place.symlink_to("nowhere")
    before = below(tmp_path)
    with pytest.raises(StoreError, match="There is something") as caught:
        export()
    assert str(place) in str(caught.value)
    assert below(tmp_path) == before


def test_a_place_without_a_parent_is_an_error(export, tmp_path):
    with pytest.raises(StoreError, match="no parent"):
        export(name="not/there")
    assert not (tmp_path / "not").exists()


def test_before_anything_is_filtered_there_is_nothing_to_export(tmp_path):
    with pytest.raises(DataError, match="Nothing has been filtered yet"):
        export_dataset(
            Store(tmp_path / "data"),
            ["a"],
            tmp_path / "out",
            "parquet",
            out_of_date=0,
            failed=(),
            licences={},
        )
    assert not (tmp_path / "out").exists()


def test_a_corpus_of_which_nothing_was_kept_is_no_dataset(export, tmp_path):
    with pytest.raises(DataError, match="No sample was kept"):
        export(shards=["dropped.whole", "none.jsonl"])
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_stops_the_export_and_leaves_nothing_behind(export, stored, tmp_path):
    manifest = stored.store.require("filtered_dataset", "kept.whole")
    stored.store.path(manifest, "dropped.parquet").write_bytes(b"damaged")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match="damaged"):
        export()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_export_that_is_cut_off_leaves_nothing_behind(export, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(dataset, "render_card", fail)
    before = sorted(path.name for path in tmp_path.iterdir())
    shown = StoreError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(shown) as caught:
        export()
    if shown is StoreError:
        assert "No space left on device" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_one_shard_is_in_memory_at_a_time(export, monkeypatch):
    alive: list[int] = []
    read = dataset.read_part

    def counted(*arguments):
        alive.append(sum(1 for each in held if each() is not None))
        frame = read(*arguments)
        held.append(weakref.ref(frame))
        return frame

    held: list = []
    monkeypatch.setattr(dataset, "read_part", counted)
    export()
    assert max(alive) <= 1


def test_a_shard_with_a_text_of_its_own_is_found_again(stored, export, tmp_path):
    text = Text("a" * 100_000, "b\n" * 50_000, "kind", "forum")
    stored.shard("long.jsonl", [text])
    folder, _ = export("jsonl", shards=["long.jsonl", "a.jsonl"])
    assert load(folder, tmp_path / "cache")[-1]["response"] == text.response
