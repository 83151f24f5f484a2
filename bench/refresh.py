"""What keeping a home of many shards up to date costs: the plan, one changed shard, a changed rule.

Models are tiny, so that the time is that of the pipeline itself. A home that is there already is
used again, so an interrupted measurement goes on where it ended.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from influcoder_assets.maker import current_facts, current_plan, nodes
from influcoder_assets.workspace import Workspace
from influcoder_lib import refresh
from tests.assets import tiny_home

Row = dict[str, Any]


def main() -> None:
    """Measure, and print a markdown table, or JSON: a list of {table, row, metric, value, unit}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="folder of the home; made if it is not there")
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=4, help="rows of a shard")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    home = given.home.resolve()
    if not home.exists():
        build(home, given.shards, given.rows)
    rows = list(measure(home))
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"| {given.shards} shards of {given.rows} rows | seconds | made |\n|---|---|---|")
    for row in rows:
        print(f"| {row['row']} | {row['value']:.2f} | {row['made']} |")


def build(home: Path, shards: int, rows: int) -> None:
    """The tiny home with many more shards, and gradients of one candidate in each."""
    tiny_home.build_home(home)
    settings = tiny_home.settings()
    settings["distillation"]["candidates_per_shard"] = 1
    tiny_home.write_settings(home, settings)
    for number in range(shards - len(tiny_home.SHARDS)):
        name = f"part-{number:05d}.jsonl"
        tiny_home.write_rows(home / "corpus" / name, tiny_home.rows(name, rows))


def measure(home: Path) -> list[Row]:
    """Each figure as a row, printed to stderr as it comes."""
    found = [timed("first refresh, or the rest of it", lambda: made_by_refresh(home))]
    found += [
        timed("plan, first of a process, imports aside", lambda: cold_plan(home)),
        timed("plan, again in that process", lambda: len(current_plan(open_home(home)))),
        timed("plan without the facts", plan_alone(home)),
        timed("refresh with nothing to do", lambda: made_by_refresh(home)),
    ]
    shard = sorted((home / "corpus").glob("part-*.jsonl"))[7]
    tiny_home.append_row(shard, {"prompt": time.ctime(), "response": "the cat .", "label": None})
    found.append(timed("one shard changed: plan", lambda: len(current_plan(open_home(home)))))
    found.append(timed("one shard changed: refresh", lambda: made_by_refresh(home)))
    settings = yaml.safe_load((home / "influcoder.yaml").read_text())
    value = settings["behaviors"][tiny_home.BEHAVIOR]["rule"]["value"]
    settings["behaviors"][tiny_home.BEHAVIOR]["rule"]["value"] = 0.5 - value
    tiny_home.write_settings(home, settings)
    found.append(timed("rule changed: plan", lambda: len(current_plan(open_home(home)))))
    found.append(timed("rule changed: refresh, one run", lambda: made_by_refresh(home)))
    return found


def timed(name: str, do: Callable[[], object]) -> Row:
    """One figure: the seconds that `do` takes, or those that it says it took."""
    begin = time.monotonic()
    made = do()
    seconds = time.monotonic() - begin
    if isinstance(made, float):
        seconds, made = made, 0
    print(f"{name}: {seconds:.2f} s, {made}", file=sys.stderr, flush=True)
    row = {"table": "refresh", "row": name, "metric": "time", "value": seconds, "unit": "s"}
    return {**row, "made": made}


def made_by_refresh(home: Path) -> dict[str, int]:
    """Artifacts that one refresh made, by asset."""
    done = tiny_home.refresh(home)
    assert done.failures == [], done.failures[:3]
    return dict(Counter(asset for asset, _ in done.made))


def open_home(home: Path) -> Workspace:
    """The home, opened anew, as every step does."""
    return Workspace.open(home)


def plan_alone(home: Path) -> Callable[[], int]:
    """The pure part of the plan, on facts that are there."""
    facts = current_facts(open_home(home))
    return lambda: len(refresh.plan(nodes(), facts))


def cold_plan(home: Path) -> float:
    """Seconds of the first plan of a new process, without its imports."""
    script = (
        "import sys, time; from pathlib import Path; import influcoder_assets.definitions;"
        "from influcoder_assets.maker import current_plan;"
        "from influcoder_assets.workspace import Workspace; begin = time.monotonic();"
        "current_plan(Workspace.open(Path(sys.argv[1]))); print(time.monotonic() - begin)"
    )
    command = [sys.executable, "-c", script, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
