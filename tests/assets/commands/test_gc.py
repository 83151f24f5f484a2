"""`influcoder gc` on a home with a past: what it says, what goes, and what still works."""

import json
from pathlib import Path

import pytest

from influcoder_assets.lock import lock_of
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import plan


def files(home: Path) -> set[Path]:
    return {path for path in (home / "data" / "artifacts").rglob("*") if path.is_file()}


def test_a_running_refresh_is_left_alone(refreshed_home: Path):
    with lock_of(Workspace.open(refreshed_home)):
        done = run("gc", "--home", refreshed_home)
    assert done.exit_code == 1
    assert "A refresh of this home is running." in done.output


def test_nothing_that_was_made_lately_goes(refreshed_home: Path):
    before = files(refreshed_home)
    assert "0 files went, 0 bytes." in run("gc", "--home", refreshed_home).output
    assert files(refreshed_home) == before


@pytest.fixture
def edited(refreshed_home: Path) -> tuple[Path, str]:
    """A home whose first shard lost its first row after a refresh; and that row's sample."""
    path = refreshed_home / "corpus" / "a.jsonl"
    store = Workspace.open(refreshed_home).store
    query = "SELECT sample_id FROM decisions WHERE shard = 'a.jsonl' AND row = 1"
    found = json.loads(run("sql", query, "--json", "--home", refreshed_home).stdout)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert tiny_home.refresh(refreshed_home).failures == []
    assert len(store.history("corpus", "a.jsonl")) == 2
    return refreshed_home, found[0]["sample_id"]


def test_ages_beyond_a_century_are_refused(done: Done):
    for days in ("inf", "1e9"):
        said = run("gc", "--days", days, "--home", done.home)
        assert said.exit_code == 2
        assert "36500" in said.output


def test_past_versions_go_and_everything_still_works(edited: tuple[Path, str]):
    home, sample_id = edited
    before = files(home)
    asked = ("gc", "--days", "0", "--json", "--home", home)
    said = json.loads(run(*asked, "--dry-run").stdout)
    assert said["removed"] is False
    assert files(home) == before
    past = {(each["asset"], each["shard"], each["number"]) for each in said["versions"]}
    assert ("corpus", "a.jsonl", 1) in past
    assert ("influence_scores", "a.jsonl", 1) in past
    assert not {asset for asset, _, _ in past} & {"filtered_dataset", "champion_encoder"}
    done = json.loads(run(*asked).stdout)
    assert done == said | {"removed": True}
    gone = before - files(home)
    assert (len(gone), files(home) - before) == (said["files"], set())
    assert plan(home) == []
    told = json.loads(run("explain", sample_id, "--json", "--home", home).stdout)
    assert [place["state"] for place in told["places"]] == ["past"]
    assert run("sql", "SELECT * FROM decisions", "--home", home).exit_code == 0
    assert run("status", "--home", home).exit_code == 0
    assert run("rollback", "--to", "untrained", "--home", home).exit_code == 0
    assert tiny_home.refresh(home).failures == []
