"""What keeping a home of many shards up to date costs: above all, adding one shard to it.

Models are tiny, so that the time is that of the pipeline itself. Every refresh runs in a process of
its own, as a run of the UI or the command does; its imports are not in the figures. A corpus is
three small shards, from which the encoder is distilled, and as many smaller ones as it takes; the
empty corpus is those three. Homes that are in the folder already are used again.
"""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import measure
from bench.measure import Figure
from influcoder_assets.maker import Task, makers
from influcoder_assets.survey import Survey
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home

EMPTY = "empty corpus"
CORPORA = (10, 100, 1000)
ROWS = 1000
_SMALL = 4
# New shards that one refresh makes, so that an interrupted bench has not lost much.
_AT_ONCE = 250


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--corpora", type=int, nargs="*", default=list(CORPORA), help="shards")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the shard that is added")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where homes are kept; else none is")
    parser.add_argument("--changes", action="store_true", help="measure other changes as well")
    given = parser.parse_args()
    ceilings, _ = measure.alone(measure.ceilings)
    figures = list(ceilings.values())
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        figures += adding_a_shard(given.corpora, given.rows, given.repeats, folder)
        if given.changes:
            for shards in given.corpora:
                figures += changes(home_of(folder, shards), shards)
    measure.show(figures, given.json)


def adding_a_shard(
    corpora: Sequence[int] = CORPORA,
    rows: int = ROWS,
    repeats: int = 3,
    folder: Path | None = None,
) -> list[Figure]:
    """Seconds to add a shard of so many rows to an empty corpus and to corpora of so many shards,
    in all and by part, and the ratio to the empty corpus."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return adding_a_shard(corpora, rows, repeats, Path(temporary))
    homes = {EMPTY: home_of(folder, 0)}
    homes |= {f"{shards:,} shards": home_of(folder, shards) for shards in sorted(corpora)}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in homes}

    def add(name: str, repeat: int) -> float:
        shard = f"added-{time.time_ns()}.jsonl"
        tiny_home.write_rows(homes[name] / "corpus" / shard, tiny_home.rows(shard, rows))
        found, _ = measure.alone(refreshed, homes[name])
        if repeat:
            parts[name].append(found)
        return found["all"]

    measure.alternate({name: functools.partial(add, name) for name in homes}, repeats)
    return list(_figures(parts))


def _figures(parts: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[Figure]:
    for name, found in parts.items():
        for part in found[0]:
            yield measure.figure("adding a shard", name, part, [each[part] for each in found], "s")
        # Repeats stand beside each other in time: the median of their ratios, not of each alone.
        pairs = zip(found, parts[EMPTY], strict=True)
        ratios = [own["all"] / empty["all"] for own, empty in pairs]
        yield measure.figure("adding a shard", name, "to the empty one", ratios, "x")


def home_of(folder: Path, shards: int) -> Path:
    """The home in the folder with a corpus of so many shards, up to date; made if need be."""
    home = folder / f"{shards}-shards"
    if not home.exists():
        smaller = [int(each.name.split("-")[0]) for each in folder.glob("*-shards")]
        nearest = max((count for count in smaller if count < shards), default=None)
        if nearest is None:
            tiny_home.build_home(home)
        else:
            tiny_home.copy_home(home_of(folder, nearest), home)
    while measure.alone(_grown, home, shards)[0]:
        pass
    return home


def _grown(home: Path, shards: int) -> bool:
    """Add some of the shards that are missing and refresh; whether any was."""
    parts = home / "corpus" / "parts"
    parts.mkdir(exist_ok=True)
    there = len(list(parts.iterdir()))
    missing = range(there, max(there, shards - len(tiny_home.SHARDS)))[:_AT_ONCE]
    for number in missing:
        name = f"{number:05d}.jsonl"
        tiny_home.write_rows(parts / name, tiny_home.rows(name, _SMALL))
    refreshed(home)
    return bool(missing)


def refreshed(home: Path) -> dict[str, float]:
    """Seconds of one refresh, in all and by part: looking at the home, what is made of shards, what
    is merged from them, and the rest, which is mostly Dagster's."""
    spent = {"all": 0.0, "looking": 0.0, "shards": 0.0, "merged": 0.0}
    for name, maker in list(makers().items()):
        part = "shards" if maker.node.sharded else "merged"
        makers()[name] = dataclasses.replace(maker, make=_timed(maker.make, spent, part))
    look = Survey.of
    Survey.of = _timed(look, spent, "looking")  # type: ignore[method-assign]
    try:
        done = _timed(tiny_home.refresh, spent, "all")(home)
    finally:
        Survey.of = look  # type: ignore[method-assign]
    if done.failures:
        raise RuntimeError(done.failures[0])
    return {**spent, "rest": 2 * spent["all"] - sum(spent.values())}


def _timed(do: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    @functools.wraps(do)
    def timed(*given: Task | Workspace | Path) -> Any:
        begin = time.perf_counter()
        try:
            return do(*given)
        finally:
            spent[part] += time.perf_counter() - begin

    return timed


def changes(home: Path, shards: int) -> Iterator[Figure]:
    """Seconds of what else may happen to a home, each once."""
    settings = yaml.safe_load((home / "influcoder.yaml").read_text())
    rule = settings["behaviors"][tiny_home.BEHAVIOR]["rule"]
    row = {"prompt": f"at {time.time_ns()}", "response": "the cat .", "label": None}
    steps: dict[str, Callable[[], object]] = {
        "nothing to do": lambda: None,
        "a row more in one shard": lambda: tiny_home.append_row(home / "corpus/a.jsonl", row),
        "another rule": lambda: (
            rule.update(value=round(0.5 - rule["value"], 3)),
            tiny_home.write_settings(home, settings),
        ),
    }
    for name, change in steps.items():
        change()
        planned, _ = measure.alone(_plan_seconds, home)
        found, _ = measure.alone(refreshed, home)
        for metric, value in {"first plan": planned, **found}.items():
            yield Figure(f"{shards:,} shards", name, metric, value, None, "s")


def _plan_seconds(home: Path) -> float:
    return measure.seconds(lambda: Survey.of(Workspace.open(home)))


if __name__ == "__main__":
    main()
