"""Looking back from a real home: lineage to the raw files; explain, search and sql as typed."""

import csv
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.audit.lineage import DECIDED, trace
from influcoder_lib.audit.views import VIEWS
from influcoder_lib.store import Store
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import BEHAVIOR, QUERIES, ROWS, SHARDS
from tests.lib.audit.chain import Chain, ids_of


def raw_row(path: Path, number: int) -> dict:
    """Row `number` of a raw file, counted from 1, read in the plainest way."""
    if path.suffix == ".jsonl":
        return json.loads(path.read_text().splitlines()[number - 1])
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))[number - 1]
    return pl.read_parquet(path).row(number - 1, named=True)


def decided(workspace: Workspace, shard: str) -> pl.DataFrame:
    manifest = workspace.store.require("filtered_dataset", shard)
    return pl.concat(
        pl.read_parquet(workspace.store.path(manifest, name)) for name in DECIDED.values()
    )


def any_id(workspace: Workspace, decision: str) -> str:
    table = decided(workspace, SHARDS[0])
    return table.filter(pl.col("decision") == decision)["sample_id"][0]


@pytest.mark.parametrize("shard", SHARDS)
def test_random_rows_lead_back_to_the_raw_file_and_to_all_that_decided(done: Done, shard):
    workspace = done.workspace
    store, settings = workspace.store, workspace.settings
    rows = list(decided(workspace, shard).iter_rows(named=True))
    champion = store.require("champion_encoder").summary
    for row in random.Random(shard).sample(rows, 6):
        found = trace(store, store.require("filtered_dataset", shard), row["sample_id"])
        file = settings.corpus.path / found.file
        assert found.raw_hash == fingerprint.of_file(file)
        raw = raw_row(file, found.row)
        assert (raw["prompt"], raw["response"]) == (row["prompt"], row["response"])
        assert fingerprint.sample_id(raw["prompt"], raw["response"]) == found.sample_id
        assert found.encoder == row["encoder"] == champion["encoder"]
        assert found.version == champion["version"]
        assert found.base_encoder == workspace.encoder_files.fingerprint()
        assert found.target_model_settings["adapter"]["rank"] == settings.target_model.adapter.rank
        assert found.queries == {BEHAVIOR: QUERIES}
        (rule,) = found.rules
        assert (rule["method"], rule["value"]) == ("fraction", 0.2)
        assert rule["threshold"] == store.require("decision_rule").summary[f"threshold_{BEHAVIOR}"]
        assert {run for runs in found.runs.values() for run in runs} == {done.first.run.run_id}
        assert found.code_versions["corpus"]
        if found.version is None:
            continue
        version = workspace.registry.client.get_model_version("influence-encoder", found.version)
        assert version.run_id == found.mlflow_run
        assert version.tags["fingerprint"] == found.encoder


def test_an_edited_shard_leaves_the_lineage_of_old_decisions_alone(refreshed_home: Path):
    workspace = Workspace.open(refreshed_home)
    sample_id = any_id(workspace, "drop")
    old = workspace.store.require("filtered_dataset", SHARDS[0])
    before = trace(workspace.store, old, sample_id)
    file = refreshed_home / "corpus" / SHARDS[0]
    first = {"prompt": "h h h h", "response": "the green cat sleeps .", "label": None}
    file.write_text(json.dumps(first) + "\n" + file.read_text())
    assert tiny_home.refresh(refreshed_home).failures == []
    assert trace(workspace.store, old, sample_id) == before
    new = workspace.store.require("filtered_dataset", SHARDS[0])
    after = trace(workspace.store, new, sample_id)
    assert after.raw_hash == fingerprint.of_file(file) != before.raw_hash
    raw = raw_row(file, after.row)
    assert fingerprint.sample_id(raw["prompt"], raw["response"]) == sample_id
    assert after.row == before.row + 1


@pytest.mark.parametrize("decision", ["keep", "drop"])
def test_explain_shows_the_decision_and_what_is_behind_it(done: Done, decision):
    sample_id = any_id(done.workspace, decision)
    result = run("explain", sample_id[:10], "--home", done.home)
    assert result.exit_code == 0
    found = json.loads(run("explain", sample_id, "--json", "--home", done.home).stdout)
    assert found["sample_id"] == sample_id
    assert found["decision"] == decision
    shown = " ".join(result.output.split())
    (standing,) = found["standings"]
    near = [each["sample_id"] for some in found["neighbours"].values() for each in some]
    for expected in (
        {"keep": "kept ", "drop": "dropped "}[decision] + found["reason"],
        sample_id,
        f"{standing['rank']} of {len(SHARDS) * ROWS}",
        *(query["query"] for query in standing["queries"]),
        *near,
        found["trace"]["raw_hash"],
        found["trace"]["encoder"],
        *done.first.run.run_id.split("-")[:1],
    ):
        assert expected in shown
    assert len(near) == 6


def test_the_json_of_an_explanation_is_stable(done: Done):
    sample_id = any_id(done.workspace, "drop")
    first, second = (
        run("explain", sample_id, "--json", "--home", done.home).stdout for _ in range(2)
    )
    assert first == second
    assert list(json.loads(first)) == [
        *("sample_id", "prompt", "response", "label", "source", "decision", "reason", "places"),
        *("standings", "neighbours", "history", "trace"),
    ]


def test_texts_are_shown_only_when_asked_for(done: Done):
    table = decided(done.workspace, SHARDS[0])
    row = table.row(0, named=True)
    quiet = run("explain", row["sample_id"], "--home", done.home).output
    loud = run("explain", row["sample_id"], "--text", "--home", done.home).output
    assert row["prompt"] not in quiet
    assert row["prompt"] in loud
    assert row["response"] in loud
    hidden, shown = (
        json.loads(run("explain", row["sample_id"], "--json", *more).stdout)
        for more in (("--home", done.home), ("--text", "--home", done.home))
    )
    assert (hidden["prompt"], hidden["response"]) == (None, None)
    assert hidden["standings"][0]["queries"][0]["prompt"] is None
    assert (shown["prompt"], shown["response"]) == (row["prompt"], row["response"])
    assert shown["standings"][0]["queries"][0]["prompt"]


def test_explain_query_shows_all_that_it_dropped(done: Done):
    tables = pl.concat(decided(done.workspace, shard) for shard in SHARDS)
    dropped = tables.filter(pl.col("decision") == "drop")
    query = dropped["best_query"].mode().sort()[0]
    own = dropped.filter(pl.col("best_query") == query)
    result = run("explain", "--query", query[:9], "--top", 100, "--home", done.home)
    assert result.exit_code == 0
    assert f"{len(own)} in the live shards" in result.output
    assert all(sample_id in result.output for sample_id in own["sample_id"])
    found = json.loads(
        run("explain", "--query", query, "--json", "--top", 1, "--home", done.home).stdout
    )
    assert (found["query"], found["dropped"], len(found["top"])) == (query, len(own), 1)
    assert found["top"][0]["prompt"] is None


@pytest.mark.parametrize("arguments", [(), ("abcdef", "--query", "abcdef")])
def test_explain_needs_a_sample_or_a_query(done: Done, arguments):
    result = run("explain", *arguments, "--home", done.home)
    assert result.exit_code == 1
    assert "what to explain" in result.output


def test_explaining_and_asking_import_no_model_library():
    code = (
        "import sys, influcoder_assets.commands.audit, influcoder_lib.audit.explanation,"
        " influcoder_lib.audit.queries, influcoder_lib.audit.catalog;"
        "print(sorted({'torch', 'transformers', 'dagster', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "command", [("search", "x"), ("sql", "FROM samples"), ("explain", "abcdef")]
)
def test_a_home_in_which_nothing_was_made_is_no_riddle(new_home, command):
    result = run(*command, "--home", new_home)
    if command[0] == "sql":
        assert (result.exit_code, result.exception) == (0, None)
    else:
        assert result.exit_code == 1
        assert "has not been made yet" in result.output or "No sample has the id" in result.output


def test_sql_lists_the_views_with_their_columns(done: Done):
    shown = run("sql", "--home", done.home).output
    for name, view in VIEWS.items():
        assert name in shown
        assert all(column in shown for column in view.columns)
    listed = json.loads(run("sql", "--json", "--home", done.home).stdout)
    assert {name: tuple(view["columns"]) for name, view in listed.items()} == {
        name: view.columns for name, view in VIEWS.items()
    }


def test_sql_prints_a_table_or_json(done: Done):
    query = "SELECT shard, count(*) AS n FROM samples GROUP BY shard ORDER BY shard"
    shown = run("sql", query, "--home", done.home).output
    assert [line.split() for line in shown.splitlines()] == [
        ["shard", "n"],
        *([shard, str(ROWS)] for shard in SHARDS),
    ]
    found = json.loads(run("sql", query, "--json", "--home", done.home).stdout)
    assert found == [{"shard": shard, "n": ROWS} for shard in SHARDS]


def test_sql_agrees_with_the_report(done: Done):
    query = "SELECT decision, count(*) AS n FROM decisions GROUP BY decision"
    found = json.loads(run("sql", query, "--json", "--home", done.home).stdout)
    report = done.workspace.store.require("curation_report").summary
    assert {row["decision"]: row["n"] for row in found} == {
        "keep": report["kept"],
        "drop": report["dropped"],
    }
    quarantined = run("sql", "FROM quarantine", "--json", "--home", done.home)
    assert len(json.loads(quarantined.stdout)) == report["quarantined"] == 1


def test_a_wide_answer_is_printed_as_a_list_and_a_long_one_is_cut(done: Done):
    wide = run("sql", "FROM decisions LIMIT 1", "--home", done.home).output
    assert [line.split()[0] for line in wide.splitlines() if line.strip()] == list(
        VIEWS["decisions"].columns
    )
    long = run("sql", "FROM range(60)", "--home", done.home).output
    assert "49" in long.split()
    assert "50" not in long.split()
    assert "10 more rows" in long


def test_sql_does_not_write(done: Done):
    result = run("sql", "COPY samples TO 'out.csv'", "--home", done.home)
    assert result.exit_code == 1
    assert "one SELECT over the views" in result.output


def test_the_queries_of_the_readme_are_answered_and_it_names_every_view(done: Done):
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    section = readme.partition("## Why was this dropped?")[2].partition("\n## ")[0]
    queries = re.findall(r'influcoder sql "(.+?)"', section, re.DOTALL)
    assert len(queries) == 2
    for query in queries:
        assert run("sql", query, "--home", done.home).exit_code == 0
    assert all(f"`{name}`" in section for name in VIEWS)


HOSTILE = "[bold red]x[/] \x1b[31mred\x1b[0m \x07 \u202egnp \\\\[/ {{7*7}} <b>"


def test_hostile_text_neither_marks_up_nor_drives_the_terminal(tmp_path):
    (tmp_path / "dagster.yaml").touch()
    tiny_home.write_settings(tmp_path, tiny_home.settings())
    chain = Chain(Store(tmp_path / "data"))
    rows = [(f"{HOSTILE} {i}", f"{HOSTILE}\nsays {i}", HOSTILE) for i in range(6)]
    chain.shards = {"a": rows}
    chain.queries = {"rude": [(f"{HOSTILE} query {i}", HOSTILE, None) for i in range(3)]}
    chain.thresholds = {"rude": -1.0}
    chain.run()
    sample_id, query = ids_of(rows)[0], ids_of(chain.queries["rude"])
    commands = [
        ("explain", sample_id, "--text"),
        *(("explain", "--query", each, "--text") for each in query),
        ("sql", "SELECT prompt, label FROM samples"),
        ("sql", "FROM samples"),
        ("sql", f'SELECT 1 AS "{HOSTILE}"'),
    ]
    for command in commands:
        result = run(*command, "--home", tmp_path)
        assert result.exit_code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(result.output)
        assert "[bold red]x[/] �[31mred�[0m � �gnp" in " ".join(result.output.split())
