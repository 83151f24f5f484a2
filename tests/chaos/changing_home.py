"""A tiny home that changes at random: its corpus, queries, reviewer's list and settings are kept
here as plain values, and written to the disk where they differ from what is there."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from influcoder_lib.fingerprint import sample_id
from tests.assets import tiny_home
from tests.assets.tiny_home import BEHAVIOR, Row

# Few names and few rows, so that what was there before comes back, elsewhere and as other formats.
_NAMES = [
    f"{folder}{stem}{suffix}"
    for folder in ("", "sub/")
    for stem in "abcde"
    for suffix in (".jsonl", ".jsonl.gz", ".csv", ".parquet")
]
_POOL = tiny_home.rows("soak", 160)
_ODD: list[Row] = [
    {"prompt": "the cat", "response": " ", "label": None},
    {"prompt": "the cat", "response": "red " * 80, "label": "rude"},
    {"prompt": "the dog", "response": "red \0 runs", "label": None},
    {"prompt": "", "response": "the red bird runs .", "label": "rude"},
    {"prompt": "the bird", "response": 'the blue bird ‚sings‘,\n"now" .', "label": "kind"},
]
_SHARDS = range(2, 9)
_LEAST_ROWS, _MOST_ROWS = 1, 40
_LEAST_QUERIES, _MOST_QUERIES = 18, 30
_LEAST_GOOD = 10
_RULE = f"behaviors.{BEHAVIOR}.rule"
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "corpus.max_characters": (200_000, 250, 300),
    _RULE: (
        {"kind": "unwanted", "method": "fraction", "value": 0.2},
        {"kind": "unwanted", "method": "fraction", "value": 0.4, "statistic": "mean"},
        {"kind": "unwanted", "method": "threshold", "value": 0.5},
        {"kind": "unwanted", "method": "false_drop_rate", "value": 0.2},
        {"kind": "wanted", "method": "fraction", "value": 0.7},
    ),
    f"behaviors.{BEHAVIOR}.resemblance": (0.5, 0.0, 0.25),
    f"behaviors.{BEHAVIOR}.hard_negative_label": ("blunt", None),
    "distillation.candidates_per_shard": (tiny_home.CANDIDATES, 8, 16),
    "target_model.tokens_per_batch": (512, 64, 200),
    "fidelity.warn_below": (0.8, 0.9),
    "report.most_dropped": (0.5, 0.1),
}


class ChangingHome:
    """What a home holds; `change` draws one thing and changes it, `write` brings a folder to it."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.shards = {name: self._some_rows(20) for name in ("a.jsonl", "b.csv", "sub/c.parquet")}
        self.queries = tiny_home.queries()
        self.known_good = [row for row in _POOL if row["label"] == "kind"][:_LEAST_GOOD]
        self.overrides: dict[str, tuple[str, str]] = {}
        self.settings = tiny_home.settings()
        self.settings["overrides"] = "reviewed.csv"

    def change(self) -> str:
        """Change one thing; returns what, in words."""
        return self._dice.choices(*zip(*_CHANGES, strict=True))[0](self)

    def write(self, home: Path) -> None:
        """Write what differs from what lies in the folder, and remove what is gone."""
        corpus = home / "corpus"
        files = {corpus / name: _as_file(name, rows) for name, rows in self.shards.items()}
        files[home / "queries" / "rude.jsonl"] = _as_file("q.jsonl", self.queries)
        files[home / "queries" / "known_good.jsonl"] = _as_file("g.jsonl", self.known_good)
        entries = [
            {"sample_id": each, "decision": decision, "note": note}
            for each, (decision, note) in self.overrides.items()
        ]
        columns = ["sample_id", "decision", "note"]
        files[home / "reviewed.csv"] = _csv(columns, entries)
        for path in corpus.rglob("*"):
            if path.is_file() and path not in files:
                path.unlink()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
        tiny_home.write_settings(home, self.settings)

    def add_a_row(self) -> str:
        shard = self._a_shard()
        rows = self.shards[shard]
        if len(rows) < _MOST_ROWS:
            rows.insert(self._dice.randint(0, len(rows)), self._a_row())
        return f"a row is added to {shard}"

    def edit_a_row(self) -> str:
        shard = self._a_shard()
        rows = self.shards[shard]
        row = dict(self._dice.choice(rows))
        row[self._dice.choice(("prompt", "response", "label"))] = self._dice.choice(("cat", "dog"))
        rows[self._dice.randrange(len(rows))] = row
        return f"a row of {shard} is edited"

    def delete_a_row(self) -> str:
        shard = self._a_shard()
        if len(self.shards[shard]) > _LEAST_ROWS:
            self.shards[shard].pop(self._dice.randrange(len(self.shards[shard])))
        return f"a row of {shard} is deleted"

    def shuffle_rows(self) -> str:
        shard = self._a_shard()
        self._dice.shuffle(self.shards[shard])
        return f"the rows of {shard} are in another order"

    def add_a_shard(self) -> str:
        name = self._a_free_name()
        if name and len(self.shards) < _SHARDS.stop:
            self.shards[name] = self._some_rows(self._dice.randint(_LEAST_ROWS, 20))
        return f"{name} is new"

    def delete_a_shard(self) -> str:
        shard = self._a_shard()
        if len(self.shards) > _SHARDS.start:
            del self.shards[shard]
        return f"{shard} is deleted"

    def rename_a_shard(self) -> str:
        shard, name = self._a_shard(), self._a_free_name()
        if name:
            self.shards[name] = self.shards.pop(shard)
        return f"{shard} is renamed {name}"

    def copy_a_shard(self) -> str:
        shard, name = self._a_shard(), self._a_free_name()
        if name and len(self.shards) < _SHARDS.stop:
            self.shards[name] = [dict(row) for row in self.shards[shard]]
        return f"{shard} is copied to {name}"

    def add_a_query(self) -> str:
        known = {row["response"] for row in self.queries}
        fresh = [row for row in tiny_home.queries(80) if row["response"] not in known]
        if fresh and len(self.queries) < _MOST_QUERIES:
            self.queries.insert(0, self._dice.choice(fresh))
        return "a query is added"

    def edit_a_query(self) -> str:
        place = self._dice.randrange(len(self.queries))
        edited = {**self.queries[place], "prompt": f"h {self._dice.randrange(1000)} h"}
        self.queries[place] = edited
        return "a query is edited"

    def delete_a_query(self) -> str:
        if len(self.queries) > _LEAST_QUERIES:
            self.queries.pop(self._dice.randrange(len(self.queries)))
        return "a query is deleted"

    def change_known_good(self) -> str:
        self._dice.shuffle(self.known_good)
        kind = [row for row in _POOL if row["label"] == "kind" and row not in self.known_good]
        self.known_good[:-1] = self.known_good[1:]
        self.known_good[-1] = self._dice.choice(kind)
        return "a known-good row is another one"

    def add_an_override(self) -> str:
        row = self._dice.choice(self._dice.choice(list(self.shards.values())))
        entry = self._dice.choice(("keep", "drop")), self._dice.choice(("", "seen, twice"))
        self.overrides[sample_id(str(row["prompt"]), str(row["response"]))] = entry
        return "an entry is in the reviewer's list"

    def delete_an_override(self) -> str:
        if self.overrides:
            del self.overrides[self._dice.choice(list(self.overrides))]
        return "an entry leaves the reviewer's list"

    def change_a_setting(self) -> str:
        key = self._dice.choice(list(_SETTINGS))
        section: dict[str, Any] = self.settings
        *sections, last = key.split(".")
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = self._dice.choice(_SETTINGS[key])
        return f"{key} is {section[last]}"

    def _some_rows(self, count: int) -> list[Row]:
        return [self._a_row() for _ in range(count)]

    def _a_row(self) -> Row:
        return dict(self._dice.choice(_ODD if self._dice.random() < 0.1 else _POOL))

    def _a_shard(self) -> str:
        return self._dice.choice(list(self.shards))

    def _a_free_name(self) -> str | None:
        return self._dice.choice([name for name in _NAMES if name not in self.shards])


_CHANGES: list[tuple[Callable[[ChangingHome], str], int]] = [
    (ChangingHome.add_a_row, 16),
    (ChangingHome.edit_a_row, 14),
    (ChangingHome.delete_a_row, 12),
    (ChangingHome.shuffle_rows, 4),
    (ChangingHome.add_a_shard, 8),
    (ChangingHome.delete_a_shard, 6),
    (ChangingHome.rename_a_shard, 8),
    (ChangingHome.copy_a_shard, 4),
    (ChangingHome.add_a_query, 4),
    (ChangingHome.edit_a_query, 4),
    (ChangingHome.delete_a_query, 4),
    (ChangingHome.change_known_good, 2),
    (ChangingHome.add_an_override, 6),
    (ChangingHome.delete_an_override, 3),
    (ChangingHome.change_a_setting, 5),
]


def _as_file(name: str, rows: list[Row]) -> bytes:
    if name.endswith(".parquet"):
        stream = io.BytesIO()
        pl.DataFrame(rows, schema=dict.fromkeys(_columns(rows), pl.String)).write_parquet(stream)
        return stream.getvalue()
    if name.endswith(".csv"):
        return _csv(_columns(rows), rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return gzip.compress(lines, mtime=0) if name.endswith(".gz") else lines


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(columns: list[str], rows: list[Any]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()
