"""Two at work on one home at the same time, and a clock that goes back."""

import os

import pytest

from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.chaos.undisturbed import check_same
from tests.chaos.victim import Victim, make_at_once, open_at_once

LONG_AGO = 10**9


def test_two_refreshes_at_once_make_everything_once(new_home, undisturbed, tmp_path):
    both = [Victim(new_home, tmp_path / f"computed-{number}") for number in range(2)]
    made = [[artifact for kind, artifact, _ in each.events() if kind == "done"] for each in both]
    assert [each.end() for each in both] == [0, 0]
    together = [artifact for each in made for artifact in each]
    assert len(together) == len(set(together))
    check_same(new_home, undisturbed.outcome)


@pytest.mark.parametrize("number", range(5))
def test_processes_that_open_a_new_homes_records_at_once_can_all_do_so(new_home, number):
    assert open_at_once(new_home, 3) == [0, 0, 0]


@pytest.mark.parametrize("asset", ["corpus", "gradient_projections", "filtered_dataset"])
def test_the_same_artifact_made_twice_at_once_is_one_artifact(home, undisturbed, asset):
    store = Workspace.open(home).store
    before = store.require(asset, "a.jsonl")
    assert make_at_once(home, asset, "a.jsonl", 3) == [0, 0, 0]
    added = store.history(asset, "a.jsonl")[1:]
    assert [each.number for each in added] == [2, 3, 4]
    assert {each.fingerprint for each in added} == {before.fingerprint}
    assert store.verify(asset, "a.jsonl") == []
    check_same(home, undisturbed.outcome)


def test_a_clock_that_was_set_back_hides_no_change(home, undisturbed):
    store = Workspace.open(home).store
    tiny_home.refresh(home)
    shard = home / "corpus" / "a.jsonl"
    original = shard.read_bytes()
    tiny_home.append_row(shard, {"prompt": "x", "response": "y ."})
    os.utime(shard, (LONG_AGO, LONG_AGO))
    assert {(step[0], step[1]) for step in tiny_home.plan(home)} >= {("corpus", "a.jsonl")}
    assert tiny_home.refresh(home).failures == []
    for path in (home / "data").rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert tiny_home.plan(home) == []
    shard.write_bytes(original)
    os.utime(shard, (LONG_AGO, LONG_AGO))
    assert tiny_home.refresh(home).failures == []
    check_same(home, undisturbed.outcome)
    first, _, last = store.history("corpus", "a.jsonl")
    assert first.fingerprint == last.fingerprint
