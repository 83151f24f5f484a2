"""The demo's raw files: shards, queries of the behavior `toxic`, and known-good rows.

`demo_sources` says where the rows come from and how they are labelled. Here they are divided: a
prompt (whatever its case and white space) is in the shards, in the queries or in the known-good
rows, never in two of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from influcoder_lib.atomic import whole
from influcoder_lib.demo_sources import (
    DemoRow,
    dialogue_rows,
    documentation_rows,
    helpful_rows,
    scored_rows,
)
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.fingerprint import draw_key

QUERIES = 60
KNOWN_GOOD = 150
DOCUMENTATION = 420

# Topics of the dialogue by shard. The shards without any hold documentation.
SHARDS: Mapping[str, frozenset[str]] = {
    "arts_and_sciences": frozenset(
        {"food", "health", "history", "literature", "money", "movies", "politics", "psychology"}
        | {"science", "sports"}
    ),
    "computing": frozenset({"ai", "coding", "computers", "tech_support"}),
    "documentation_1": frozenset(),
    "documentation_2": frozenset(),
    "documentation_3": frozenset(),
    "emotion": frozenset({"emotion"}),
    "small_talk": frozenset(
        {"botprofile", "conversations", "gossip", "greetings", "helpful", "humor"}
    ),
    "trivia": frozenset({"trivia"}),
}

# Seeds of the draws, so that one choice says nothing about another.
_QUERY_SEED, _GOOD_SEED, _SHARD_SEED, _ORDER_SEED, _DOCUMENTATION_SEED = range(5)
# A prompt with more replies than this stays in the shards: moving it would cost them all.
_MOST_REPLIES = 4


@dataclass(frozen=True)
class DemoCounts:
    """What the demo corpus holds.

    Attributes:
        shards: rows by label, by shard.
        queries: rows by category of harm.
        known_good: rows by label.
        left_out: rows left out because their prompt is a query's or a known-good row's.
        written: the files that were missing and have been written, relative to the home.
    """

    shards: Mapping[str, Mapping[str, int]]
    queries: Mapping[str, int]
    known_good: Mapping[str, int]
    left_out: int
    written: tuple[str, ...]


def write_demo_corpus(home: Path) -> DemoCounts:
    """Write the demo's raw files below `home`; a file that exists is left as it is.

    Writes `corpus/<shard>.jsonl` for each of `SHARDS`, `queries/toxic.jsonl` and
    `known_good/benign.jsonl`, each row with prompt, response, label and source. The bytes depend
    on the installed packages only.

    Raises:
        DataError: a package is missing, or lacks the folder that is read.
        StoreError: a file cannot be written.
    """
    rows = _unique(chain(dialogue_rows(), helpful_rows(), scored_rows(), _documentation()))
    queries = _draw_queries(rows)
    rest = _without_prompts(rows, queries)
    known_good = _draw_known_good(rest)
    kept = _without_prompts(rest, known_good)
    shards: dict[str, list[DemoRow]] = {name: [] for name in SHARDS}
    for row in kept:
        shards[_shard(row)].append(row)
    files = {f"corpus/{name}.jsonl": shard for name, shard in shards.items()}
    files |= {"queries/toxic.jsonl": queries, "known_good/benign.jsonl": known_good}
    written = [name for name, content in files.items() if _write_missing(home / name, content)]
    return DemoCounts(
        shards={name: _count(shard, lambda row: row.label) for name, shard in shards.items()},
        queries=_count(queries, lambda row: row.category),
        known_good=_count(known_good, lambda row: row.label),
        left_out=len(rows) - len(queries) - len(known_good) - len(kept),
        written=tuple(written),
    )


def _unique(rows: Iterable[DemoRow]) -> list[DemoRow]:
    """The first row of each pair of prompt and response."""
    unique: dict[tuple[str, str], DemoRow] = {}
    for row in rows:
        unique.setdefault((row.prompt, row.response), row)
    return list(unique.values())


def _documentation() -> list[DemoRow]:
    rows = _unique(documentation_rows())
    return _drawn(rows, _DOCUMENTATION_SEED, lambda row: row.sample_id)[:DOCUMENTATION]


def _drawn(rows: Iterable[DemoRow], seed: int, identity: Callable[[DemoRow], str]) -> list[DemoRow]:
    return sorted(rows, key=lambda row: (draw_key(seed, identity(row)), row.sample_id))


def _without_prompts(rows: Sequence[DemoRow], taken: Sequence[DemoRow]) -> list[DemoRow]:
    prompts = {row.normalised_prompt for row in taken}
    return [row for row in rows if row.normalised_prompt not in prompts]


def _draw_queries(rows: Sequence[DemoRow]) -> list[DemoRow]:
    """Unsafe rows of different prompts, taken from the kinds of harm in turn."""
    unsafe = [row for row in rows if row.label == "unsafe"]
    replies = Counter(row.normalised_prompt for row in rows)
    by_category: dict[str, dict[str, DemoRow]] = {}
    for row in _drawn(unsafe, _QUERY_SEED, lambda row: row.normalised_prompt):
        if replies[row.normalised_prompt] <= _MOST_REPLIES:
            by_category.setdefault(row.category, {}).setdefault(row.normalised_prompt, row)
    turns = zip_longest(*(by_category[name].values() for name in sorted(by_category)))
    drawn: dict[str, DemoRow] = {}
    for row in chain.from_iterable(turns):
        if row is not None:
            drawn.setdefault(row.normalised_prompt, row)
    queries = list(drawn.values())[: min(QUERIES, len(unsafe) // 3)]
    if not queries:
        raise DataError(
            "The package pyrit holds no unsafe replies that could be queries.",
            fix="run `make demo`, which installs the version that has them",
        )
    return queries


def _draw_known_good(rows: Sequence[DemoRow]) -> list[DemoRow]:
    """Good rows in the proportion of their labels in the corpus, whole prompts at a time."""
    by_prompt: dict[str, list[DemoRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.normalised_prompt, []).append(row)
    labels = Counter(row.label for row in rows)
    good = labels["benign"] + labels["safe_aligned"]
    room = {"safe_aligned": round(KNOWN_GOOD * labels["safe_aligned"] / max(good, 1))}
    room["benign"] = KNOWN_GOOD - room["safe_aligned"]
    drawn = []
    for prompt in sorted(by_prompt, key=lambda prompt: (draw_key(_GOOD_SEED, prompt), prompt)):
        replies = by_prompt[prompt]
        found = {row.label for row in replies}
        label = replies[0].label
        fits = len(replies) <= min(_MOST_REPLIES, room.get(label, 0))
        if fits and len(found) == 1:
            room[label] -= len(replies)
            drawn += replies
    return drawn


def _shard(row: DemoRow) -> str:
    """Benign dialogue goes by topic; the rest by its prompt, so that every shard has some."""
    if row.label == "benign" and not row.source.startswith("scikit-learn/"):
        return next(name for name, topics in SHARDS.items() if row.category in topics)
    names = [name for name, topics in SHARDS.items() if row.label != "benign" or not topics]
    return names[draw_key(_SHARD_SEED, row.normalised_prompt) % len(names)]


def _count(rows: Iterable[DemoRow], key: Callable[[DemoRow], str]) -> dict[str, int]:
    return dict(sorted(Counter(map(key, rows)).items()))


def _write_missing(path: Path, rows: Sequence[DemoRow]) -> bool:
    """Write a jsonl file unless it exists; whether it was written."""
    if path.exists():
        return False
    ordered = _drawn(rows, _ORDER_SEED, lambda row: row.sample_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_bytes("".join(row.to_json() for row in ordered).encode())
    except OSError as error:
        raise StoreError(
            f"A file of the demo corpus cannot be written ({error.strerror or error}).",
            where=f"file {path}",
            fix="make the folder writable, or choose another home",
        ) from error
    return True
