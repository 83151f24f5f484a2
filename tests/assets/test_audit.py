"""Looking back from a real home: lineage to the raw files; explain, search and sql as typed."""

import csv
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from influcoder_assets.cli import app
from influcoder_assets.workspace import Workspace
from influcoder_lib import fingerprint
from influcoder_lib.audit.lineage import DECIDED, trace
from influcoder_lib.audit.views import VIEWS
from influcoder_lib.samples import Sample, read_samples, to_samples
from influcoder_lib.store import Store
from influcoder_lib.student.encoder import InfluenceEncoder
from tests.assets import tiny_home
from tests.assets.conftest import Done
from tests.assets.tiny_home import BEHAVIOR, QUERIES, ROWS, SHARDS
from tests.lib.audit.chain import Chain, ids_of

Command = Callable[..., Result]


@pytest.fixture
def influcoder() -> Iterator[Command]:
    """Runs the command; the environment is put back afterwards."""
    with mock.patch.dict(os.environ):
        for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI"):
            os.environ.pop(name, None)

        def run(*arguments: str | Path, typed: str | None = None) -> Result:
            result = CliRunner().invoke(app, [str(each) for each in arguments], input=typed)
            assert "Traceback" not in result.output
            assert result.exception is None or isinstance(result.exception, SystemExit)
            return result

        yield run


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
def test_explain_shows_the_decision_and_what_is_behind_it(influcoder, done: Done, decision):
    sample_id = any_id(done.workspace, decision)
    result = influcoder("explain", sample_id[:10], "--home", done.home)
    assert result.exit_code == 0
    found = json.loads(influcoder("explain", sample_id, "--json", "--home", done.home).stdout)
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


def test_the_json_of_an_explanation_is_stable(influcoder, done: Done):
    sample_id = any_id(done.workspace, "drop")
    first, second = (
        influcoder("explain", sample_id, "--json", "--home", done.home).stdout for _ in range(2)
    )
    assert first == second
    assert list(json.loads(first)) == [
        *("sample_id", "prompt", "response", "label", "source", "decision", "reason", "places"),
        *("standings", "neighbours", "history", "trace"),
    ]


def test_texts_are_shown_only_when_asked_for(influcoder, done: Done):
    table = decided(done.workspace, SHARDS[0])
    row = table.row(0, named=True)
    quiet = influcoder("explain", row["sample_id"], "--home", done.home).output
    loud = influcoder("explain", row["sample_id"], "--text", "--home", done.home).output
    assert row["prompt"] not in quiet
    assert row["prompt"] in loud
    assert row["response"] in loud
    hidden, shown = (
        json.loads(influcoder("explain", row["sample_id"], "--json", *more).stdout)
        for more in (("--home", done.home), ("--text", "--home", done.home))
    )
    assert (hidden["prompt"], hidden["response"]) == (None, None)
    assert hidden["standings"][0]["queries"][0]["prompt"] is None
    assert (shown["prompt"], shown["response"]) == (row["prompt"], row["response"])
    assert shown["standings"][0]["queries"][0]["prompt"]


def test_explain_query_shows_all_that_it_dropped(influcoder, done: Done):
    tables = pl.concat(decided(done.workspace, shard) for shard in SHARDS)
    dropped = tables.filter(pl.col("decision") == "drop")
    query = dropped["best_query"].mode().sort()[0]
    own = dropped.filter(pl.col("best_query") == query)
    result = influcoder("explain", "--query", query[:9], "--top", 100, "--home", done.home)
    assert result.exit_code == 0
    assert f"{len(own)} samples" in result.output
    assert all(sample_id in result.output for sample_id in own["sample_id"])
    found = json.loads(
        influcoder("explain", "--query", query, "--json", "--top", 1, "--home", done.home).stdout
    )
    assert (found["query"], found["dropped"], len(found["top"])) == (query, len(own), 1)
    assert found["top"][0]["prompt"] is None


@pytest.mark.parametrize("arguments", [(), ("abcdef", "--query", "abcdef")])
def test_explain_needs_a_sample_or_a_query(influcoder, done: Done, arguments):
    result = influcoder("explain", *arguments, "--home", done.home)
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


@pytest.fixture(scope="module")
def by_hand(done: Done) -> Callable[[str, str], list[tuple[float, str, str]]]:
    """(cosine, sample id, shard) of the whole corpus with an output, from the encoder itself."""
    store = done.workspace.store
    champion = store.require("champion_encoder")
    encoder = InfluenceEncoder.load(store.folder(champion) / "encoder", champion.summary["window"])
    rows = [
        (shard, sample)
        for shard in SHARDS
        for sample in to_samples(
            read_samples(store.path(store.require("corpus", shard), "samples.parquet"))
        )
    ]
    corpus = encoder.encode([sample for _, sample in rows])

    def nearest(prompt: str, response: str) -> list[tuple[float, str, str]]:
        (vector,) = encoder.encode([Sample("0" * 32, prompt, response)])
        found = [
            (float(np.float64(cosine)), sample.sample_id, shard)
            for cosine, (shard, sample) in zip(corpus @ vector, rows, strict=True)
        ]
        return sorted(found, reverse=True)

    return nearest


def same(found: list[dict], expected: list[tuple[float, str, str]]) -> bool:
    """Whether hits are the highest ones; near ties may come in either order."""
    cosines = {(sample_id, shard): cosine for cosine, sample_id, shard in expected}
    own = [cosines[each["sample_id"], each["shard"]] for each in found]
    return (
        len({(each["sample_id"], each["shard"]) for each in found}) == len(found)
        and np.allclose([each["cosine"] for each in found], own, atol=2e-6)
        and np.allclose(own, [cosine for cosine, _, _ in expected[: len(found)]], atol=2e-6)
    )


def test_search_finds_what_the_encoder_itself_puts_nearest(influcoder, done: Done, by_hand):
    text = "the red cat runs ."
    result = influcoder("search", text, "--top", 7, "--json", "--home", done.home)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert list(answer) == ["prompt", "response", "milliseconds", "truncated", "found"]
    assert (answer["prompt"], answer["response"], answer["truncated"]) == ("", text, False)
    assert len(answer["found"]) == 7
    assert same(answer["found"], by_hand("", text))
    rows = {
        row["sample_id"]: row
        for shard in SHARDS
        for row in decided(done.workspace, shard).iter_rows(named=True)
    }
    for each in answer["found"]:
        row = rows[each["sample_id"]]
        names = ("file", "row", "label", "decision", "prompt", "response")
        assert [each[name] for name in names] == [row[name] for name in names]


def test_search_takes_a_prompt_and_a_response(influcoder, done: Done, by_hand):
    result = influcoder(
        "search", "a b c", "--response", "the blue dog sings .", "--json", "--home", done.home
    )
    answer = json.loads(result.stdout)
    assert (answer["prompt"], answer["response"]) == ("a b c", "the blue dog sings .")
    assert len(answer["found"]) == 10
    assert same(answer["found"], by_hand("a b c", "the blue dog sings ."))


def test_search_reads_a_file_in_the_form_of_a_shard(influcoder, done: Done, tmp_path, by_hand):
    asked = [("a b", "the red cat runs ."), ("", "the green dog sleeps .")]
    path = tmp_path / "asked.jsonl"
    tiny_home.write_rows(path, [{"prompt": p, "response": r} for p, r in asked])
    result = influcoder("search", "--file", path, "--top", 3, "--json", "--home", done.home)
    answers = json.loads(result.stdout)
    assert [(each["prompt"], each["response"]) for each in answers] == asked
    for answer in answers:
        assert same(answer["found"], by_hand(answer["prompt"], answer["response"]))
    shown = influcoder("search", "--file", path, "--home", done.home).output
    assert "a b → the red cat runs ." in shown


def test_search_asks_for_outputs_until_a_blank_line(influcoder, done: Done):
    typed = "the red cat runs .\nthe blue dog sings .\n \nthe green bird sleeps .\n"
    result = influcoder("search", "--top", 2, "--home", done.home, typed=typed)
    assert result.exit_code == 0
    assert len(re.findall(r"found in \d+ ms", result.stdout)) == 2
    ended = influcoder("search", "--json", "--home", done.home, typed="the red cat runs .")
    assert [json.loads(line)["response"] for line in ended.stdout.splitlines()] == [
        "the red cat runs ."
    ]


def test_search_says_when_the_end_of_a_text_is_not_read(influcoder, done: Done):
    long = "the red cat runs . " * 30
    assert "its end was left out" in influcoder("search", long, "--home", done.home).output
    assert "its end" not in influcoder("search", "the cat", "--home", done.home).output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("search", " "), "is blank"),
        (("search", "x", "--file", "rows.jsonl"), "Both a file and a text"),
        (("search", "--file", "nowhere.jsonl"), "does not exist"),
        (("search", "--file", "bad.jsonl"), "the response is blank"),
        (("search", "--file", "empty.csv"), "holds no rows"),
    ],
)
def test_what_cannot_be_searched_for_is_an_error(
    influcoder, done: Done, tmp_path, monkeypatch, arguments, problem
):
    monkeypatch.chdir(tmp_path)
    tiny_home.write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "response": " "}])
    (tmp_path / "empty.csv").write_text("prompt,response\n")
    result = influcoder(*arguments, "--home", done.home)
    assert result.exit_code == 1
    assert problem in result.output


@pytest.mark.parametrize(
    "command", [("search", "x"), ("sql", "FROM samples"), ("explain", "abcdef")]
)
def test_a_home_in_which_nothing_was_made_is_no_riddle(influcoder, new_home, command):
    result = influcoder(*command, "--home", new_home)
    if command[0] == "sql":
        assert (result.exit_code, result.exception) == (0, None)
    else:
        assert result.exit_code == 1
        assert "has not been made yet" in result.output or "No sample has the id" in result.output


def test_sql_lists_the_views_with_their_columns(influcoder, done: Done):
    shown = influcoder("sql", "--home", done.home).output
    for name, view in VIEWS.items():
        assert name in shown
        assert all(column in shown for column in view.columns)
    listed = json.loads(influcoder("sql", "--json", "--home", done.home).stdout)
    assert {name: tuple(view["columns"]) for name, view in listed.items()} == {
        name: view.columns for name, view in VIEWS.items()
    }


def test_sql_prints_a_table_or_json(influcoder, done: Done):
    query = "SELECT shard, count(*) AS n FROM samples GROUP BY shard ORDER BY shard"
    shown = influcoder("sql", query, "--home", done.home).output
    assert [line.split() for line in shown.splitlines()] == [
        ["shard", "n"],
        *([shard, str(ROWS)] for shard in SHARDS),
    ]
    found = json.loads(influcoder("sql", query, "--json", "--home", done.home).stdout)
    assert found == [{"shard": shard, "n": ROWS} for shard in SHARDS]


def test_sql_agrees_with_the_report(influcoder, done: Done):
    query = "SELECT decision, count(*) AS n FROM decisions GROUP BY decision"
    found = json.loads(influcoder("sql", query, "--json", "--home", done.home).stdout)
    report = done.workspace.store.require("curation_report").summary
    assert {row["decision"]: row["n"] for row in found} == {
        "keep": report["kept"],
        "drop": report["dropped"],
    }
    quarantined = influcoder("sql", "FROM quarantine", "--json", "--home", done.home)
    assert len(json.loads(quarantined.stdout)) == report["quarantined"] == 1


def test_a_wide_answer_is_printed_as_a_list_and_a_long_one_is_cut(influcoder, done: Done):
    wide = influcoder("sql", "FROM decisions LIMIT 1", "--home", done.home).output
    assert [line.split()[0] for line in wide.splitlines() if line.strip()] == list(
        VIEWS["decisions"].columns
    )
    long = influcoder("sql", "FROM range(60)", "--home", done.home).output
    assert "49" in long.split()
    assert "50" not in long.split()
    assert "10 more rows" in long


def test_sql_does_not_write(influcoder, done: Done):
    result = influcoder("sql", "COPY samples TO 'out.csv'", "--home", done.home)
    assert result.exit_code == 1
    assert "one SELECT over the views" in result.output


HOSTILE = "[bold red]x[/] \x1b[31mred\x1b[0m \x07 \u202egnp \\\\[/ {{7*7}} <b>"


def test_hostile_text_neither_marks_up_nor_drives_the_terminal(influcoder, tmp_path):
    for name in ("dagster.yaml", "influcoder.yaml"):
        (tmp_path / name).touch()
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
        result = influcoder(*command, "--home", tmp_path)
        assert result.exit_code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(result.output)
        assert "[bold red]x[/] �[31mred�[0m � �gnp" in " ".join(result.output.split())
