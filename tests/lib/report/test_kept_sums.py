"""Kept sums: what adding up everything gives, from as few aggregates as have changed."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from influcoder_lib.report.kept_sums import FAN, KeptSums
from influcoder_lib.report.sums import combine

Corpus = dict[str, float]


@pytest.fixture
def sums(tmp_path, make_rule, make_decided, summarise) -> Callable[[Corpus], list[str]]:
    """Adds up a corpus, each shard named with its one score; checks the sum against that of
    everything and returns the shards that were read for it."""
    rules = [make_rule(), make_rule("rude", 0.4)]

    def aggregates(shard: str, score: float) -> dict:
        return summarise(shard, make_decided(shard, [score, -score, 0.1], rules), rules)

    def add(corpus: Corpus) -> list[str]:
        read: list[str] = []

        def look(shard: str) -> dict:
            read.append(shard)
            return aggregates(shard, corpus[shard])

        kept = KeptSums(tmp_path / "sums", rules, look)
        found = kept.total({shard: str(score) for shard, score in corpus.items()})
        assert found == combine([aggregates(*each) for each in corpus.items()], rules)
        return read

    return add


def shards(count: int) -> Corpus:
    dice = random.Random(0)
    return {f"part-{number:03d}.jsonl": round(dice.random(), 3) for number in range(count)}


def test_a_shard_more_fewer_or_changed_costs_few_reads_and_gives_the_same_sum(sums):
    corpus = shards(3 * FAN)
    assert sorted(sums(corpus)) == sorted(corpus)
    assert sums(corpus) == []
    changed = {**corpus, "part-007.jsonl": 0.99}
    assert "part-007.jsonl" in sums(changed)
    assert len(sums(corpus)) <= FAN
    more = {**corpus, "new.jsonl": 0.98}
    assert "new.jsonl" in sums(more)
    del more["part-011.jsonl"]
    assert len(sums(more)) < FAN
    assert len(sums({"part-001.jsonl": 0.5})) == 1


def test_a_corpus_that_outgrows_a_node_and_shrinks_again_adds_up_all_the_way(sums):
    corpus = shards(FAN + 3)
    for count in (1, FAN, FAN + 1, FAN + 3, FAN - 1):
        sums(dict(list(corpus.items())[:count]))


@pytest.mark.parametrize("harm", [b"", b"{", b"no key\n{}"])
def test_a_damaged_sum_is_added_up_again(sums, tmp_path: Path, harm: bytes):
    corpus = shards(FAN + 1)
    sums(corpus)
    for file in (tmp_path / "sums").iterdir():
        file.write_bytes(harm)
    assert sorted(sums(corpus)) == sorted(corpus)
    for file in (tmp_path / "sums").iterdir():
        file.write_bytes(file.read_bytes().replace(b"part-0", b"part-9"))
    assert len(sums(corpus)) > 0


def test_other_rules_take_over_nothing(tmp_path, make_rule, make_decided, summarise):
    for threshold in (0.2, 0.6):
        rules = [make_rule(threshold=threshold)]
        part = summarise("a.jsonl", make_decided("a.jsonl", [0.5, 0.3], rules), rules)
        found = KeptSums(tmp_path, rules, lambda _, part=part: part).total({"a.jsonl": "1"})
        assert found == combine([part], rules)
