"""The report asset: against which report it compares, with what, and what makes it anew."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from influcoder_assets.maker import current_facts, make
from influcoder_assets.workspace import Workspace
from influcoder_lib.report.escaping import escape
from influcoder_lib.store import Manifest
from tests.assets import tiny_home
from tests.assets.changes import check_refresh
from tests.assets.tiny_home import BEHAVIOR, ROWS, SHARDS

NEW = "new.jsonl"
REPORT = ("curation_report", None)


def decided(workspace: Workspace, shard: str) -> dict[str, str]:
    """The current decision on every sample of a shard."""
    store = workspace.store
    made = store.require("filtered_dataset", shard)
    frames = [pl.read_parquet(store.path(made, f"{name}.parquet")) for name in ("kept", "dropped")]
    return dict(pl.concat(frames).select("sample_id", "decision").iter_rows())


def text_of(workspace: Workspace, manifest: Manifest | None = None) -> str:
    """A report as markdown, by default the current one."""
    store = workspace.store
    return store.path(manifest or store.require("curation_report"), "report.md").read_text()


def made_again(home: Path) -> Manifest:
    """The report, made again whatever the plan says."""
    workspace = Workspace.open(home)
    manifest, _ = make(workspace, current_facts(workspace), *REPORT, "by hand")
    return manifest


@pytest.fixture(scope="module")
def changed(done, tmp_path_factory) -> Path:
    """The refreshed home after one more refresh: another rule and reviewer's list, an edited
    shard, a new and a vanished one, one query more."""
    home = tiny_home.copy_home(done.home, tmp_path_factory.mktemp("changed") / "home")
    kept = [k for k, decision in decided(done.workspace, "a.jsonl").items() if decision == "keep"]
    (home / "reviewed.csv").write_text(f"sample_id,decision,note\n{kept[0]},drop,\n")
    settings = tiny_home.settings()
    settings["behaviors"][BEHAVIOR]["rule"]["value"] = 0.4
    settings["overrides"] = "reviewed.csv"
    tiny_home.write_settings(home, settings)
    row = {"prompt": "h h h h", "response": "the green cat sleeps .", "label": None}
    tiny_home.append_row(home / "corpus" / "a.jsonl", row)
    tiny_home.append_row(
        home / "queries" / f"{BEHAVIOR}.jsonl",
        {"prompt": "h g f e", "response": "the red cat runs ."},
    )
    tiny_home.write_rows(home / "corpus" / NEW, tiny_home.rows("new"))
    (home / "corpus" / "c.parquet").unlink()
    assert tiny_home.refresh(home).failures == []
    return home


def test_the_first_report_compares_with_nothing(done):
    assert "This is the first report: there is none to compare it with." in text_of(done.workspace)
    summary = done.workspace.store.require("curation_report").summary
    assert (summary["newly_dropped"], summary["restored"]) == (None, None)


def test_a_later_report_counts_what_moved_and_says_why(done, changed):
    workspace = Workspace.open(changed)
    before = {shard: decided(done.workspace, shard) for shard in SHARDS}
    now = {shard: decided(workspace, shard) for shard in ("a.jsonl", "sub.b.csv", NEW)}
    moves = [
        (before[shard].get(sample), decision)
        for shard in ("a.jsonl", "sub.b.csv")
        for sample, decision in now[shard].items()
    ]
    summary = workspace.store.require("curation_report").summary
    assert summary["newly_dropped"] == moves.count(("keep", "drop")) > 0
    assert summary["restored"] == moves.count(("drop", "keep"))
    text = text_of(workspace)
    for cause in (
        "Rule of rude: unwanted fraction 0.2 on max → unwanted fraction 0.4 on max.",
        "Queries of rude: 1 added, 0 removed.",
        "Reviewer's list: 1 new, 0 withdrawn, 0 turned round.",
        "New shards: new.jsonl.",
        "Shards that are gone: c.parquet.",
        "Shards with other samples: a.jsonl.",
    ):
        assert f"- {escape(cause)}" in text
    assert f"| new samples | **{len(now[NEW]) + 1}** |" in text
    assert f"| samples gone | **{len(before['c.parquet'])}** |" in text


def test_the_report_says_how_far_the_distillation_set_is_behind(changed):
    text = text_of(Workspace.open(changed))
    assert "| distillation set | **behind** | 1 of 3 shards new" in text
    assert "1 of 25 queries new" in text


def test_a_report_made_again_from_the_same_has_the_same_content(changed):
    first = Workspace.open(changed).store.require("curation_report")
    again = made_again(changed)
    assert again.number == first.number + 1
    assert again.files == first.files


def test_a_report_on_the_same_decisions_keeps_its_comparison(changed, tmp_path):
    home = tiny_home.copy_home(changed, tmp_path / "home")
    before = text_of(Workspace.open(home))
    settings = Workspace.open(home).settings.model_dump(mode="json")
    settings["report"]["most_dropped"] = 0.01
    tiny_home.write_settings(home, settings)
    assert tiny_home.plan(home) == [(*REPORT, "setting most_dropped: 0.5 → 0.01")]
    made_again(home)
    after = text_of(Workspace.open(home))
    assert escape("that report.most_dropped allows") in after
    sections = [text.split("## Since")[1].split("## Funnel")[0] for text in (before, after)]
    assert sections[0] == sections[1]


def test_going_back_compares_with_the_report_in_between(done, changed, tmp_path):
    home = tiny_home.copy_home(changed, tmp_path / "home")
    for name in ("influcoder.yaml", "corpus", "queries"):
        source, target = done.home / name, home / name
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    assert tiny_home.refresh(home).failures == []
    workspace = Workspace.open(home)
    assert decided(workspace, "a.jsonl") == decided(done.workspace, "a.jsonl")
    forth, back = (
        Workspace.open(each).store.require("curation_report").summary for each in (changed, home)
    )
    assert back["newly_dropped"] == forth["restored"]
    assert back["restored"] == forth["newly_dropped"]
    assert f"- {escape('New shards: c.parquet.')}" in text_of(workspace)
    assert made_again(home).files == workspace.store.require("curation_report").files


def test_earlier_decisions_that_are_lost_do_not_stop_the_report(done, changed, tmp_path):
    home = tiny_home.copy_home(changed, tmp_path / "home")
    store = Workspace.open(home).store
    for key in (("filtered_dataset", "a.jsonl"), ("decision_rule", None)):
        shutil.rmtree(store.place(done.workspace.store.require(*key)))
    made_again(home)
    text = text_of(Workspace.open(home))
    assert escape("are not stored any more: 1 shard, a.jsonl.") in text
    assert "Rule of rude" not in text


def test_a_shard_that_fails_is_lacking_in_a_report_by_other_rules_until_it_is_mended(
    refreshed_home, change_settings
):
    broken = refreshed_home / "corpus" / "c.parquet"
    rows = broken.read_bytes()
    broken.write_bytes(b"PAR1 is how it begins")
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule.value", 0.4)
    (failure,) = tiny_home.refresh(refreshed_home).failures
    assert failure.startswith("corpus/c.parquet: ")
    workspace = Workspace.open(refreshed_home)
    text = text_of(workspace)
    assert escape("The report lacks 1 of the corpus's shards: c.parquet.") in text
    assert escape("Rule of rude: unwanted fraction 0.2") in text
    assert escape("Shards that are gone") not in text
    assert workspace.store.require("curation_report").summary["rows_in"] == 2 * ROWS + 1
    assert tiny_home.plan(refreshed_home) == []
    broken.write_bytes(rows)
    check_refresh(refreshed_home, {("filtered_dataset", "c.parquet"), REPORT})
    assert "The report lacks" not in text_of(workspace)


def test_a_new_shard_that_fails_is_lacking_in_the_report_until_it_is_taken_away(refreshed_home):
    broken = refreshed_home / "corpus" / "broken.parquet"
    broken.write_bytes(b"PAR1 is how it begins")
    assert tiny_home.refresh(refreshed_home).made == {REPORT}
    lacks = escape("The report lacks 1 of the corpus's shards: broken.parquet.")
    assert lacks in text_of(Workspace.open(refreshed_home))
    broken.unlink()
    check_refresh(refreshed_home, {REPORT})
    assert lacks not in text_of(Workspace.open(refreshed_home))


def test_without_any_shard_by_the_rules_in_force_there_is_no_report_until_one_is_mended(
    refreshed_home, change_settings
):
    for name in ("a.jsonl", "sub/b.csv", "c.parquet"):
        (refreshed_home / "corpus" / name).write_bytes(b"")
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.rule.value", 0.4)
    (said,) = tiny_home.refresh(refreshed_home).failures
    *shards, report = said.split("\n\n")
    assert [each.split(":")[0] for each in shards] == [f"corpus/{shard}" for shard in SHARDS]
    assert report.startswith("curation_report: No shard was decided on by the rules in force")
    assert tiny_home.plan(refreshed_home) == []


def test_a_label_setting_of_the_report_makes_the_report_alone(refreshed_home, change_settings):
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.hard_negative_label", "nobody")
    assert [step for step in tiny_home.plan(refreshed_home) if step[0] == "curation_report"]
    assert not [step for step in tiny_home.plan(refreshed_home) if step[0] == "filtered_dataset"]
    made_again(refreshed_home)
    warning = "No sample has the label nobody that behavior rude is measured on."
    assert escape(warning) in text_of(Workspace.open(refreshed_home))
