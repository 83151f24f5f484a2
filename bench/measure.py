"""What benches share: figures and their tables, alternating repeats, the machine's ceilings."""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from influcoder_lib import fingerprint, hardware, memory

# Beyond the caches of most machines; square products whose rate no longer grows with their size.
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
_MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
# A CPU without bfloat16 would take minutes for one product of that size.
_EMULATED_SIZE = 256


@dataclass(frozen=True)
class Figure:
    """A value and its spread, None if taken once. Of timings they are the median and half the
    distance of the quartiles (`figure`), of runs over seeds the mean and the standard deviation."""

    table: str
    row: str
    metric: str
    value: float
    spread: float | None
    unit: str


def code(*modules: ModuleType) -> str:
    """Fingerprint of these modules' code, of a package that of all modules in it."""
    files: list[Path] = []
    for own in (Path(str(each.__file__)) for each in modules):
        files += own.parent.glob("*.py") if own.name == "__init__.py" else [own]
    return fingerprint.of_pairs((path.name, fingerprint.of_file(path)) for path in files)


def parser(doc: str) -> argparse.ArgumentParser:
    """A bench's command line; every bench can print JSON."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return made


def figure(table: str, row: str, metric: str, values: Sequence[float], unit: str) -> Figure:
    """Median and spread of repeated measurements."""
    if len(values) < 2:
        return Figure(table, row, metric, values[0], None, unit)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(table, row, metric, statistics.median(values), (high - low) / 2, unit)


def alternate(
    contenders: Mapping[str, Callable[[int], float]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """What each contender returns, measured in turns, so that a slow minute hits all of them.

    A contender is called with the number of the repeat: 0 for the warm-up, which is not kept.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(0 if warm_up else 1, repeats + 1):
        for name, measure in contenders.items():
            value = measure(repeat)
            say(f"{name}, {f'repeat {repeat} of {repeats}' if repeat else 'warm-up'}: {value:.4g}")
            if repeat:
                found[name].append(value)
    return found


def seconds(do: Callable[[], Any]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


def alone(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What `work` returns and the peak memory in MiB of a fresh process that does only that."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sender, work, *given))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the process ended with exit code {child.exitcode}") from None
    finally:
        child.join()


def _report(sender: Any, work: Callable[..., Any], *given: Any) -> None:
    result = work(*given)
    sender.send((result, memory.peak() / 2**20))


def ceilings(repeats: int = 7) -> dict[str, Figure]:
    """What this machine can do at most: matrix products in two dtypes, and copying memory."""
    device = hardware.device()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        emulated = dtype == torch.bfloat16 and not hardware.has_bfloat16(device)
        size = _EMULATED_SIZE if emulated else _MATMUL_SIZE[device.type]
        a = torch.rand(size, size, device=device).to(dtype)
        rates = _rates(lambda a=a: a @ a, 2e-9 * a.shape[0] ** 3, repeats)
        found[name] = figure("machine", f"matmul {name}", "rate", rates, "GFLOP/s")
    count = _COPY_BYTES[device.type]
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = _rates(lambda: target.copy_(source), 1e-9 * count, repeats)
    found["copy"] = figure("machine", "memory copy", "rate", rates, "GB/s")
    return found


def _rates(do: Callable[[], Any], amount: float, repeats: int) -> list[float]:
    def finished() -> None:
        do()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(2):
        finished()
    return [amount / seconds(finished) for _ in range(repeats)]


def say(line: str) -> None:
    """Progress; the tables alone go to standard output."""
    print(line, file=sys.stderr, flush=True)


def show(figures: Sequence[Figure], as_json: bool) -> None:
    """Print all tables as markdown, or the figures as a JSON list."""
    if as_json:
        print(json.dumps([asdict(each) for each in figures], indent=1))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {_device()}")
    for table, rows in groupby(figures, key=lambda each: each.table):
        print(f"\n{markdown(table, list(rows))}")


def markdown(table: str, figures: Sequence[Figure]) -> str:
    """One table: a line a row, a column a metric."""
    metrics = list(dict.fromkeys((each.metric, each.unit) for each in figures))
    cells = {(each.row, each.metric, each.unit): _cell(each) for each in figures}
    heads = [f"{metric} ({unit})" if unit else metric for metric, unit in metrics]
    lines = [f"| {' | '.join([table, *heads])} |", "|---" * (len(metrics) + 1) + "|"]
    for row in dict.fromkeys(each.row for each in figures):
        own = [cells.get((row, *metric), "") for metric in metrics]
        lines.append(f"| {' | '.join([row, *own])} |")
    return "\n".join(lines)


def _cell(one: Figure) -> str:
    value = _number(one.value)
    return value if one.spread is None else f"{value} ± {_number(one.spread)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
