"""Gradient features of a target model: tokens a second, memory, and agreement of the dtypes.

  (a)    PEFT, one sample a backward pass, float32, as the published code does
  (a16)  the same in bfloat16; by default on a GPU only
  (b)    bergson 2.5.1 at its best setting on a CPU; only where --bergson names an interpreter
  (c)    ours in float32
  (d)    ours in bfloat16, once for each --tokens-per-batch

Each is a process of its own. Samples are dealt into chunks of a like mix of lengths; all do one
chunk before any does the next, and the first is the warm-up. Tokens are those of the target model,
prompt and response, without padding. A token is counted as 4 operations a parameter: forward, and
backward to the activations; work that a contender leaves out is credited to it all the same.

The default takes about 13 minutes on two idle cores, half of it for (a) and (b). `--only d` takes
4, and `--samples 16 --chunks 2` shows in two or three that everything works.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bench import measure
from bench.measure import Figure
from bench.peers.protocol import Answer, Contender, Row
from influcoder_assets.settings_models import FreshAdapter, SketchSettings, TargetModelSettings
from influcoder_lib import hardware, models, target_model
from influcoder_lib.samples import Sample
from influcoder_lib.teacher.tokens import SpanEncoder

# The best of bfloat16 and float32, fused and eager attention, 512 to 2,048 tokens a batch.
_BERGSON = {"precision": "bf16", "attention": "eager", "tokens_per_batch": 512}
_DECODERS: dict[str, dict[str, Any]] = {
    "qwen3-4b": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
}
# So many texts of Dolly are longer than any window in use.
_JOINED = 32


@dataclass(frozen=True)
class Entry:
    """One row of the table: how its process is started, and the dtype of its ceiling."""

    name: str
    python: str
    module: str
    options: dict[str, Any]
    dtype: str


@dataclass(frozen=True)
class Measured:
    """What a contender did with each chunk, the warm-up first."""

    answers: list[Answer]
    rates: list[float]
    """Tokens a second of all chunks but the warm-up."""


def main() -> None:
    """Measure and print."""
    given = arguments()
    figures = measure.ceilings()
    folder = target(given)
    rows = tokenised(folder, given)
    chunks = deal(rows, given.chunks)
    entries = contenders(folder, given)
    operations = 4e-9 * parameters(folder)
    with tempfile.TemporaryDirectory() as features:
        measured = run(entries, chunks, Path(features))
        found = agreement(Path(features), entries, len(chunks))
    title = table_name(rows, entries)
    for name, entry in entries.items():
        ceiling = figures[entry.dtype].value
        found += speed(title, entry, measured[name], chunks, operations, ceiling)
        found += ratios(title, entry, measured[name], measured)
    if "d" in entries:
        # The chunk with the longest row, so that both calls have a batch of the same size.
        few = max(chunks, key=lambda chunk: max(len(row.ids) for row in chunk))
        found += memory(entries["d"], few, rows)
    measure.show([*figures.values(), *sorted(found, key=lambda each: each.table)], given.json)


def arguments() -> argparse.Namespace:
    """The command line, with what depends on other arguments filled in."""
    ours = TargetModelSettings()
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--models",
        type=Path,
        default=Path("dagster_home/data/models"),
        help="folder for unpacked models (default: the demo's)",
    )
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=8, help="at least 2; one is the warm-up")
    parser.add_argument("--only", nargs="+", choices=["a", "a16", "b", "c", "d"])
    parser.add_argument("--bergson", metavar="PYTHON", help="interpreter that has bergson")
    parser.add_argument("--tokens-per-batch", type=int, nargs="+")
    parser.add_argument(
        "--random-decoder",
        choices=list(_DECODERS),
        help="a decoder of this shape with random weights, and samples that fill the window",
    )
    parser.add_argument("--window", type=int, help="default: 512, for a random decoder 1024")
    given = parser.parse_args()
    if not 2 <= given.chunks <= given.samples:
        parser.error("--chunks must be at least 2 and at most --samples")
    if given.only and "b" in given.only and not given.bergson:
        parser.error("--only b needs --bergson PYTHON")
    given.window = given.window or (1024 if given.random_decoder else ours.window)
    suited = hardware.gradient_tokens(None, given.window)
    given.tokens_per_batch = given.tokens_per_batch or [suited]
    return given


def target(given: argparse.Namespace) -> Path:
    """Folder of the target model: the packaged one, or one of random weights made once."""
    target_model.quiet()
    packaged = models.locate(TargetModelSettings().path, Path())
    folder = target_model.unpack(packaged, given.models)
    name = given.random_decoder
    if name is None:
        return folder.resolve()
    made = given.models / f"random-{name}"
    if not made.is_dir():
        part = made.with_name(f"{made.name}.part")
        torch.manual_seed(0)
        config = AutoConfig.for_model("qwen3", **_DECODERS[name])
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(part)
        AutoTokenizer.from_pretrained(folder).save_pretrained(part)
        part.replace(made)
    return made.resolve()


def parameters(folder: Path) -> int:
    """How many numbers the model has; shared ones count once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return model.num_parameters()


def tokenised(folder: Path, given: argparse.Namespace) -> list[Row]:
    """Samples of Dolly's part for distillation, a seeded draw."""
    texts = pl.read_parquet(given.data / "dolly.parquet").filter(pl.col("split") == "distil")
    drawn = texts.sample(given.samples, seed=0).select("prompt", "response").rows()
    if given.random_decoder:
        drawn = joined(drawn)
    samples = [Sample(str(number), *pair) for number, pair in enumerate(drawn)]
    spans = SpanEncoder(AutoTokenizer.from_pretrained(folder), given.window).encode(samples)
    return [
        Row(sample.prompt, sample.response, span.ids, span.loss_start)
        for sample, span in zip(samples, spans, strict=True)
        if span.usable
    ]


def joined(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """As many pairs, of which prompt and response each are long enough to be cut."""
    texts = ["\n".join(pair) for pair in pairs]
    long = [
        "\n".join(texts[(start + step) % len(texts)] for step in range(_JOINED))
        for start in range(len(texts))
    ]
    return [(text, text) for text in long]


def deal(rows: Sequence[Row], chunks: int) -> list[list[Row]]:
    """Chunks of a like mix of lengths: of each so many rows next in length, one goes to each."""
    order = sorted(rows, key=lambda row: -len(row.ids))
    draw = random.Random(0)
    dealt: list[list[Row]] = [[] for _ in range(chunks)]
    for start in range(0, len(order), chunks):
        places = draw.sample(range(chunks), chunks)
        for place, row in zip(places, order[start : start + chunks], strict=False):
            dealt[place].append(row)
    return dealt


def contenders(folder: Path, given: argparse.Namespace) -> dict[str, Entry]:
    """The rows of the table by their letters; the budgets of (d) after the first have a suffix."""
    here = sys.executable
    model = {"model": str(folder)}
    found = {}
    for letter, dtype in (("a", "float32"), ("a16", "bfloat16")):
        options = {**model, "dtype": dtype, "rank": FreshAdapter().rank}
        name = f"({letter}) PEFT, one by one, {dtype}"
        found[letter] = Entry(name, here, "bench.peers.peft_worker", options, dtype)
    options = {**model, **_BERGSON}
    name = f"(b) bergson, bfloat16, {_BERGSON['tokens_per_batch']} tokens a batch"
    found["b"] = Entry(name, given.bergson, "bench.peers.bergson_worker", options, "bfloat16")
    first, *others = given.tokens_per_batch
    found["c"] = own(model, "c", "float32", first, given.window)
    found["d"] = own(model, "d", "bfloat16", first, given.window)
    for budget in others:
        found[f"d-{budget}"] = own(model, "d", "bfloat16", budget, given.window)
    default = ["a", "c", "d", *(["b"] if given.bergson else [])]
    wanted = given.only or default + (["a16"] if torch.cuda.is_available() else [])
    return {name: entry for name, entry in found.items() if name.split("-")[0] in wanted}


def own(model: dict[str, str], letter: str, dtype: str, budget: int, window: int) -> Entry:
    """This project's row, with the pipeline's default settings."""
    adapter, sketch = FreshAdapter(), SketchSettings()
    settings = {
        "dtype": dtype,
        "window": window,
        "tokens_per_batch": budget,
        "rank": adapter.rank,
        "seed": adapter.seed,
        "adapter": None,
        "sketch_dimensions": sketch.dimensions,
        "sketch_seed": sketch.seed,
    }
    name = f"({letter}) Influcoder, {dtype}, {budget} tokens a batch"
    module = "bench.peers.influcoder_worker"
    return Entry(name, sys.executable, module, {**model, **settings}, dtype)


def run(
    entries: Mapping[str, Entry], chunks: Sequence[Sequence[Row]], folder: Path
) -> dict[str, Measured]:
    """Every contender on every chunk, in turns; features go to the folder."""
    answers: dict[str, list[Answer]] = {name: [] for name in entries}

    def turn(name: str, worker: Contender, number: int) -> float:
        chunk = chunks[number]
        answer = worker.compute(chunk, folder / f"{name}-{number}.npy")
        answers[name].append(answer)
        return tokens(chunk) / answer.seconds

    with ExitStack() as running:
        turns = {
            name: partial(turn, name, running.enter_context(start(entry)))
            for name, entry in entries.items()
        }
        rates = measure.alternate(turns, len(chunks) - 1)
    return {name: Measured(answers[name], rates[name]) for name in entries}


def start(entry: Entry) -> Contender:
    """Its process, when it is ready."""
    measure.say(f"starting {entry.name}")
    return Contender(entry.python, entry.module, entry.options)


def tokens(rows: Sequence[Row]) -> int:
    """Tokens of prompts and responses."""
    return sum(len(row.ids) for row in rows)


def table_name(rows: Sequence[Row], entries: Mapping[str, Entry]) -> str:
    """Head of the main table, which also says when bergson is missing."""
    missing = "" if "b" in entries else "; bergson is left out"
    return f"{len(rows)} samples, {tokens(rows):,} tokens{missing}"


def speed(
    table: str,
    entry: Entry,
    found: Measured,
    chunks: Sequence[Sequence[Row]],
    operations: float,
    ceiling: float,
) -> list[Figure]:
    """A contender's rates and memory; `operations` in GFLOP a token, `ceiling` in GFLOP/s."""
    samples = [len(chunk) / done.seconds for chunk, done in zip(chunks, found.answers, strict=True)]
    used = [operations * rate for rate in found.rates]
    first, last = found.answers[0].peak, found.answers[-1].peak
    return [
        measure.figure(table, entry.name, "tokens", found.rates, "/s"),
        measure.figure(table, entry.name, "samples", samples[1:], "/s"),
        measure.figure(table, entry.name, "operations", used, "GFLOP/s"),
        measure.figure(
            table, entry.name, "of matmul", [100 * each / ceiling for each in used], "%"
        ),
        Figure(table, entry.name, "peak memory, first chunk", first, None, "MiB"),
        Figure(table, entry.name, "peak memory, all", last, None, "MiB"),
    ]


def ratios(
    table: str, entry: Entry, found: Measured, measured: Mapping[str, Measured]
) -> list[Figure]:
    """How many times faster than the two peers, chunk by chunk."""
    return [
        measure.figure(
            table,
            entry.name,
            f"to ({peer})",
            [own / other for own, other in zip(found.rates, measured[peer].rates, strict=True)],
            "times",
        )
        for peer in ("a", "b")
        if peer in measured
    ]


def memory(entry: Entry, few: Sequence[Row], all_rows: Sequence[Row]) -> list[Figure]:
    """Peak memory of a fresh process that gets all its samples at once."""
    figures = []
    for rows in (few, all_rows):
        with start(entry) as worker:
            peak = worker.compute(rows).peak
        row = f"{len(rows)} samples"
        figures.append(Figure("(d) in one call", row, "peak memory", peak, None, "MiB"))
    return figures


def agreement(folder: Path, entries: Mapping[str, Entry], chunks: int) -> list[Figure]:
    """Cosine of each sample's feature in bfloat16 to that in float32."""
    if not {"c", "d"} <= entries.keys():
        return []
    ours, exact = (
        np.concatenate([np.load(folder / f"{name}-{number}.npy") for number in range(chunks)])
        for name in ("d", "c")
    )
    cosines = (ours * exact).sum(axis=1)
    return [
        Figure("agreement", "(d) to (c)", name, float(value), None, "cosine")
        for name, value in (("mean", cosines.mean()), ("least", cosines.min()))
    ]


if __name__ == "__main__":
    main()
