"""`influcoder search` on a real home, against the encoder itself over the whole corpus."""

import json
import re
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest

from influcoder_lib.samples import Sample, read_samples, to_samples
from influcoder_lib.student.encoder import InfluenceEncoder
from tests.assets import tiny_home
from tests.assets.command import run
from tests.assets.conftest import Done
from tests.assets.tiny_home import SHARDS


@pytest.fixture(scope="module")
def by_hand(done: Done) -> Callable[[str, str], list[tuple[float, str, str]]]:
    """(cosine, sample id, shard) of the whole corpus with an output, from the encoder itself."""
    store = done.workspace.store
    champion = store.require("champion_encoder")
    encoder = InfluenceEncoder.load(store.folder(champion, "encoder"), champion.summary["window"])
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
        and np.allclose([each["cosine"] for each in found], own, atol=5e-5)
        and np.allclose(own, [cosine for cosine, _, _ in expected[: len(found)]], atol=5e-5)
    )


def test_search_finds_what_the_encoder_itself_puts_nearest(done: Done, by_hand):
    text = "the red cat runs ."
    result = run("search", text, "--top", 7, "--json", "--home", done.home)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert list(answer) == ["prompt", "response", "milliseconds", "truncated", "found"]
    assert (answer["prompt"], answer["response"], answer["truncated"]) == ("", text, False)
    assert len(answer["found"]) == 7
    assert same(answer["found"], by_hand("", text))
    query = """SELECT shard, sample_id, file, row, d.label, decision, prompt, response
        FROM decisions AS d JOIN samples USING (shard, sample_id, file, row)"""
    rows = json.loads(run("sql", query, "--json", "--home", done.home).stdout)
    for each in answer["found"]:
        assert {name: value for name, value in each.items() if name != "cosine"} in rows


def test_search_takes_a_prompt_and_a_response(done: Done, by_hand):
    result = run(
        "search", "a b c", "--response", "the blue dog sings .", "--json", "--home", done.home
    )
    answer = json.loads(result.stdout)
    assert (answer["prompt"], answer["response"]) == ("a b c", "the blue dog sings .")
    assert len(answer["found"]) == 10
    assert same(answer["found"], by_hand("a b c", "the blue dog sings ."))


def test_search_reads_a_file_in_the_form_of_a_shard(done: Done, tmp_path, by_hand):
    asked = [("a b", "the red cat runs ."), ("", "the green dog sleeps .")]
    path = tmp_path / "asked.jsonl"
    tiny_home.write_rows(path, [{"prompt": p, "response": r} for p, r in asked])
    result = run("search", "--file", path, "--top", 3, "--json", "--home", done.home)
    answers = json.loads(result.stdout)
    assert [(each["prompt"], each["response"]) for each in answers] == asked
    for answer in answers:
        assert same(answer["found"], by_hand(answer["prompt"], answer["response"]))
    shown = run("search", "--file", path, "--home", done.home).output
    assert "a b → the red cat runs ." in shown


@pytest.mark.parametrize("end", [" ", EOFError, KeyboardInterrupt])
def test_search_asks_for_outputs_until_a_blank_line_or_the_end(done: Done, monkeypatch, end):
    texts = ["the red cat runs .", "the blue dog sings ."]
    for more in ((), ("--json",)):
        typed = mock.Mock(side_effect=[*texts, end, "the green bird sleeps ."])
        monkeypatch.setattr("builtins.input", typed)
        result = run("search", "--top", "2", *more, "--home", done.home)
        assert result.exit_code == 0
        if more:
            answers = [json.loads(line) for line in result.stdout.splitlines()]
            assert [each["response"] for each in answers] == texts
        else:
            assert len(re.findall(r"found in \d+ ms", result.stdout)) == 2


def test_search_says_when_the_end_of_a_text_is_not_read(done: Done):
    long = "the red cat runs . " * 30
    assert "part of it was not read" in run("search", long, "--home", done.home).output
    assert "its end" not in run("search", "the cat", "--home", done.home).output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("search", " "), "is blank"),
        (("search", "caf\udce9"), "is not valid UTF-8"),
        (("search", "x", "--file", "rows.jsonl"), "Both a file and a text"),
        (("search", "--file", "nowhere.jsonl"), "does not exist"),
        (("search", "--file", "bad.jsonl"), "the response is blank"),
        (("search", "--file", "empty.csv"), "holds no rows"),
    ],
)
def test_what_cannot_be_searched_for_is_an_error(
    done: Done, tmp_path, monkeypatch, arguments, problem
):
    monkeypatch.chdir(tmp_path)
    tiny_home.write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "response": " "}])
    (tmp_path / "empty.csv").write_text("prompt,response\n")
    result = run(*arguments, "--home", done.home)
    assert result.exit_code == 1
    assert problem in result.output
