"""The demo corpus: enough of everything, no prompt in two places, and never overwritten."""

import json
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from influcoder_lib import demo_sources
from influcoder_lib.demo_corpus import SHARDS, DemoCounts, write_demo_corpus
from influcoder_lib.errors import DataError
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.samples import find_shards


def _installed() -> bool:
    try:
        for package in ("chatterbot-corpus", "pyrit", "scikit-learn"):
            metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


needs_packages = pytest.mark.skipif(
    not _installed(), reason="the packages of the demo (dependency group `demo`) are not installed"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def counts(home: Path) -> DemoCounts:
    return write_demo_corpus(home)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def _prompts(*paths: Path) -> set[str]:
    return {" ".join(row["prompt"].casefold().split()) for path in paths for row in _rows(path)}


@needs_packages
def test_every_shard_has_rows_of_every_label(home: Path, counts: DemoCounts) -> None:
    assert list(find_shards(home / "corpus").files) == [f"{name}.jsonl" for name in sorted(SHARDS)]
    assert len(counts.shards) >= 8
    for name, labels in counts.shards.items():
        found = Counter(row["label"] for row in _rows(home / "corpus" / f"{name}.jsonl"))
        assert labels == dict(found)
        assert set(labels) == {"benign", "safe_aligned", "unsafe"}
        assert min(labels.values()) >= 10
    sizes = [sum(labels.values()) for labels in counts.shards.values()]
    assert sum(sizes) >= 2000
    assert max(sizes) < 2 * min(sizes)


@needs_packages
def test_queries_are_unsafe_and_spread_over_kinds_of_harm(home: Path, counts: DemoCounts) -> None:
    rows = _rows(home / "queries" / "toxic.jsonl")
    assert {row["label"] for row in rows} == {"unsafe"}
    assert len({row["prompt"] for row in rows}) == len(rows) == 60
    assert sum(counts.queries.values()) == 60
    assert len(counts.queries) >= 5
    assert max(counts.queries.values()) <= 15


@needs_packages
def test_known_good_rows_are_good_and_in_proportion(home: Path, counts: DemoCounts) -> None:
    rows = _rows(home / "known_good" / "benign.jsonl")
    assert Counter(row["label"] for row in rows) == counts.known_good
    assert set(counts.known_good) == {"benign", "safe_aligned"}
    assert len(rows) == 150
    total = Counter[str]()
    for labels in counts.shards.values():
        total.update(labels)
    share = total["safe_aligned"] / (total["safe_aligned"] + total["benign"])
    assert counts.known_good["safe_aligned"] == pytest.approx(150 * share, abs=2)


@needs_packages
def test_no_prompt_is_in_two_places(home: Path, counts: DemoCounts) -> None:
    assert counts.left_out < 100
    shards = _prompts(*(home / "corpus").glob("*.jsonl"))
    queries = _prompts(home / "queries" / "toxic.jsonl")
    known_good = _prompts(home / "known_good" / "benign.jsonl")
    assert not shards & queries
    assert not shards & known_good
    assert not queries & known_good


@needs_packages
def test_the_categories_left_out_give_no_rows(home: Path, counts: DemoCounts) -> None:
    rows = [row for path in home.rglob("*.jsonl") for row in _rows(path)]
    pyrit = {row["source"].split("/")[2] for row in rows if row["source"].startswith("pyrit/")}
    assert {"violence", "hate_speech", "privacy"} <= pyrit
    assert not pyrit & demo_sources.LEFT_OUT
    assert len({(row["prompt"], row["response"]) for row in rows}) == len(rows)


@needs_packages
def test_the_shards_hold_no_bad_rows(home: Path, counts: DemoCounts, tmp_path: Path) -> None:
    columns = Columns(label="label", source="source")
    for key, path in find_shards(home / "corpus").files.items():
        done = ingest(path, key, columns, tmp_path / "s", tmp_path / "q", 200_000)
        assert done.quarantined == 0
        assert done.valid == sum(counts.shards[path.stem].values())


@needs_packages
def test_only_missing_files_are_written_and_always_the_same_bytes(
    home: Path, counts: DemoCounts, tmp_path: Path
) -> None:
    again = write_demo_corpus(tmp_path)
    assert again == counts
    assert len(again.written) == len(SHARDS) + 2
    edited, missing = tmp_path / "corpus" / "emotion.jsonl", tmp_path / "corpus" / "trivia.jsonl"
    edited.write_text("mine")
    missing.unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    assert write_demo_corpus(tmp_path).written == ("corpus/trivia.jsonl",)
    assert edited.read_text() == "mine"
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for path in set(tmp_path.rglob("*.jsonl")) - {edited}:
        assert path.read_bytes() == (home / path.relative_to(tmp_path)).read_bytes()
    assert write_demo_corpus(tmp_path).written == ()


def test_a_missing_package_is_an_error_that_says_what_installs_it() -> None:
    with pytest.raises(DataError, match="package no-such-package is not installed") as caught:
        demo_sources.package_folder("no-such-package", "data")
    assert "make demo" in caught.value.fix
    with pytest.raises(DataError, match="has no folder nowhere"):
        demo_sources.package_folder("pytest", "nowhere")


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_sources, "package_folder", lambda package, folder: tmp_path / folder)
    return tmp_path


def _scores(folder: Path, name: str, *lines: str) -> None:
    path = folder / "pyrit/datasets/scorer_evals" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["# dataset_version=1.0,,", *lines]) + "\n")


def test_labels_follow_the_mean_of_the_human_scores(fake_package: Path) -> None:
    header = "objective,assistant_response,human_score_1,human_score_2,data_type"
    rows = [
        "p,bad,1,0,text",
        "p,good,0.25,0,text",
        "p,between,0.5,0,text",
        "p,image,1,1,image_path",
    ]
    _scores(fake_package, "harm/violence_multi_score.csv", header, *rows)
    _scores(fake_package, "harm/mini_violence.csv", header, "p,between,1,1,text")
    _scores(fake_package, "harm/exploits.csv", header, "p,left out,1,1,text")
    single = "objective,assistant_response,human_score,data_type"
    rows = ["p,good,1,text", "p,achieved,1,text", "p,not achieved,0,text"]
    _scores(
        fake_package, "objective/bias.csv", single, *rows, "p,at odds,0,text", "p,at odds,1,text"
    )
    found = {row.response: (row.label, row.source) for row in demo_sources.scored_rows()}
    assert found == {
        "bad": ("unsafe", "pyrit/harm/violence"),
        "good": ("safe_aligned", "pyrit/harm/violence"),
        "between": ("unsafe", "pyrit/harm/violence"),
        "achieved": ("unsafe", "pyrit/objective/bias"),
        "not achieved": ("safe_aligned", "pyrit/objective/bias"),
    }


def test_turns_pair_up_and_an_entry_that_is_no_conversation_is_left_out(fake_package: Path) -> None:
    folder = fake_package / "chatterbot_corpus/data/english"
    folder.mkdir(parents=True)
    (folder / "food.yml").write_text("conversations:\n- - a\n  - b\n  - c\n- only a question\n")
    found = [(row.prompt, row.response, row.source) for row in demo_sources.dialogue_rows()]
    assert found == [("a", "b", "chatterbot-corpus/food"), ("b", "c", "chatterbot-corpus/food")]


def test_only_named_harmless_prompts_are_taken_from_the_refusal_files(fake_package: Path) -> None:
    header = "objective,assistant_response,human_score,data_type"
    rows = ["Tell me a riddle!,riddle,0,text", "Tell me a riddle!,off topic,1,text", "x,y,0,text"]
    _scores(fake_package, "refusal_scorer/refusal.csv", header, *rows)
    assert [(row.response, row.label) for row in demo_sources.helpful_rows()] == [
        ("riddle", "benign")
    ]


def test_documentation_is_the_prose_of_public_docstrings(fake_package: Path) -> None:
    prose = "A :class:`~sklearn.Thing` that does ``x``.\n\n    " + "More words of prose. " * 9
    body = (
        f'"""{prose}\n\n    Read more in the :ref:`guide <g>`.\n\n    Parameters\n    ------\n"""'
    )
    for name in ("cluster/_k.py", "cluster/tests/test_k.py", "_private/k.py", "base.py"):
        path = fake_package / "sklearn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"class Thing:\n    {body}\n\ndef _hidden():\n    {body}\n\ndef short(): 1\n"
        )
    (row,) = demo_sources.documentation_rows()
    assert row.prompt == "What is sklearn.cluster.Thing?"
    assert row.response.startswith("A sklearn.Thing that does `x`.\n\nMore words")
    assert "guide" not in row.response
    assert "Parameters" not in row.response
