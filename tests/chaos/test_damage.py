"""What is stored and then damaged, cut short or lost: found, named, and made again."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from influcoder_assets.refresh import redistill_job
from influcoder_assets.workspace import Workspace
from influcoder_lib.store import Manifest
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW
from tests.assets.command import run
from tests.chaos.undisturbed import ASSETS, Undisturbed, check_same, outcome

Harm = Callable[[Path], None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def in_force(home: Path, asset: str) -> Manifest:
    """An artifact of an asset: of a sharded one, that of the first shard."""
    shard = tiny_home.SHARDS[0] if asset in tiny_home.SHARDED else None
    return Workspace.open(home).store.require(asset, shard)


def harm_one_of_each(home: Path, harms: tuple[Harm, ...]) -> dict[str, Path]:
    """Harm a file of an artifact of every asset; which, by asset."""
    dice = random.Random("damage")
    store = Workspace.open(home).store
    found = {}
    for asset in ASSETS:
        manifest = in_force(home, asset)
        path = store.place(manifest) / dice.choice(sorted(manifest.files))
        dice.choice(harms)(path)
        found[asset] = path
    return found


def manifest_files(home: Path, asset: str) -> list[Path]:
    manifest = in_force(home, asset)
    return sorted((home / "data/manifests" / asset / (manifest.shard or "_")).glob("*.json"))


def test_plan_verify_names_all_damage_and_the_next_refresh_makes_it_good(home, undisturbed):
    harmed = harm_one_of_each(home, (flip, cut, Path.unlink))
    said = run("plan", "--verify", "--home", home).output.replace("\n", "")
    for asset, path in harmed.items():
        assert f"{path.name} of {asset}" in said or path.name in said, asset
        assert str(path) in said
    again = tiny_home.refresh(home)
    assert again.failures == []
    assert {asset for asset, _ in again.made} >= harmed.keys()
    check_same(home, undisturbed.outcome)


def test_of_two_frozen_sets_the_damaged_one_is_made_anew_and_the_one_before_it_is_not_used(home):
    tiny_home.write_rows(home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    assert tiny_home.refresh(home, redistill_job).failures == []
    expected, frozen = outcome(home), in_force(home, "distillation_set")
    flip(Workspace.open(home).store.place(frozen) / "candidates.parquet")
    said = run("plan", "--verify", "--home", home).output
    assert "its files are damaged" in said
    assert tiny_home.refresh(home).failures == []
    again = in_force(home, "distillation_set")
    assert (again.fingerprint, again.number) == (frozen.fingerprint, frozen.number + 1)
    check_same(home, expected)


def test_nothing_is_embedded_by_an_encoder_in_use_that_is_damaged(home):
    champion = in_force(home, "champion_encoder")
    flip(Workspace.open(home).store.place(champion) / "encoder" / "model.safetensors")
    tiny_home.append_row(home / "corpus" / "a.jsonl", NEW_ROW)
    first = tiny_home.refresh(home)
    assert "encoder/model.safetensors of champion_encoder is damaged" in first.failures[0]
    assert ("corpus_embeddings", "a.jsonl") not in first.made
    again = tiny_home.refresh(home)
    assert again.failures == []
    assert {("champion_encoder", None), ("corpus_embeddings", "a.jsonl")} <= again.made
    assert tiny_home.plan(home) == []


def test_a_manifest_that_cannot_be_read_stops_nothing_and_is_made_good(home, undisturbed):
    for asset in ASSETS:
        manifest_files(home, asset)[-1].write_text("{")
    assert tiny_home.refresh(home).failures == []
    check_same(home, undisturbed.outcome)


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_damaged_input_fails_what_is_made_of_it_and_the_next_run_makes_both(
    home, undisturbed, harm
):
    store = Workspace.open(home).store
    place = store.place(in_force(home, "corpus")) / "samples.parquet"
    harm(place)
    for each in manifest_files(home, "filtered_dataset"):
        each.unlink()
    first = tiny_home.refresh(home)
    assert len(first.failures) == 1
    assert "samples.parquet of corpus/a.jsonl" in first.failures[0]
    assert str(place) in first.failures[0]
    again = tiny_home.refresh(home)
    assert again.failures == []
    assert {("corpus", "a.jsonl"), ("filtered_dataset", "a.jsonl")} <= again.made
    check_same(home, undisturbed.outcome)


@pytest.mark.parametrize(
    ("vectors", "asset", "harm"),
    [("gradients", "gradient_projections", flip), ("embeddings", "corpus_embeddings", cut)],
)
def test_a_damaged_segment_of_vectors_is_named_and_its_vectors_computed_again(
    home, undisturbed, vectors, asset, harm
):
    segments = sorted((home / "data" / "rows" / vectors).rglob("*.safetensors"))
    for each in segments:
        harm(each)
    for each in manifest_files(home, asset):
        each.unlink()
    named = set()
    while failures := tiny_home.refresh(home).failures:
        (said,) = failures
        named |= {each for each in segments if str(each) in said}
        assert not any(each.exists() for each in named if harm is cut)
        assert len(named) <= len(segments)
    assert named
    check_same(home, undisturbed.outcome)


def test_lost_manifests_are_made_good(home, undisturbed):
    for asset in ASSETS:
        for each in manifest_files(home, asset):
            each.unlink()
    again = tiny_home.refresh(home)
    assert again.failures == []
    check_same(home, undisturbed.outcome)


def test_a_home_that_lost_all_manifests_ends_where_it_was(home, undisturbed: Undisturbed):
    for each in (home / "data" / "manifests").rglob("*.json"):
        each.unlink()
    assert tiny_home.refresh(home).failures == []
    check_same(home, undisturbed.outcome)
