"""Finding unsafe samples in a large benign pool, as DATE-LM does: students, baselines, the teacher.

The student is distilled from `--distil`: its unsafe rows are the queries, up to `--queries`; the
rest, and `--candidates` of its benign rows, are the candidates, a seeded sixth of both choosing the
best epoch: `--draws` times over, each with a draw of rows of its own, which gives mean and spread.
A row whose prompt is in the pool or the references, or nearly so, is left out. Then the references
are the queries, and a row's score is its mean over them.

  AUPRC          unsafe rows against all, and against the safe-aligned ones alone: refusals and
                 harmless answers to prompts that look unsafe
  recall         share of the unsafe rows among the 1 % and 5 % highest scores
  safe lost      share of the safe-aligned rows above the score that finds 90 % of the unsafe ones
  x untrained    AUPRC over that of the untrained encoder; `low` and `high` bound its 95 % interval,
                 from 1,000 paired bootstrap draws of the pool's rows

`--teacher N` adds a second table on all unsafe and safe-aligned rows and N benign ones, with what
needs the target model for every row: the teacher's gradients, LESS, LoGra and Rep-Sim. All that is
kept in `--runs`, so that a killed run goes on, with what it cost when it was made. The default
takes about 20 minutes on two cores, `--benign 500 --candidates 100 --queries 30` three.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from bench import distilling, measure
from bench.distilling import UNTRAINED, Predictors, samples
from bench.kept import Kept
from bench.measure import Figure
from influcoder_lib import metrics, target_model
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings

_DRAWS = 1000
_DATA = Path("../shared/data")


def main() -> None:
    """Measure and print."""
    given = arguments()
    target_model.quiet()
    pool, references, distil = (
        frame_of(path) for path in (given.pool, given.references, given.distil)
    )
    pool = drawn(pool, given.benign)
    distil = apart(distil, pl.concat([pool.select("prompt"), references.select("prompt")]))
    draws = [one_draw(given, pool, references, distil, seed) for seed in range(given.draws)]
    measure.show(list(map(mean, zip(*draws, strict=True))), given.json)


def one_draw(
    given: argparse.Namespace,
    pool: pl.DataFrame,
    references: pl.DataFrame,
    distil: pl.DataFrame,
    seed: int,
) -> list[Figure]:
    """The figures of what is distilled from one draw of rows."""
    kept, (asked, offered) = Kept(given.runs), sides(given, distil, seed)
    usual = distilling.predictors(kept, asked, offered)
    queries = samples(references)
    figures = list(table("toxicity, the pool", pool, queries, usual))
    if given.teacher:
        part = drawn(pool, given.teacher)
        every = usual | distilling.of_target_model(kept, offered)
        figures += table("toxicity, the teacher beside", part, queries, every)
    return figures


def mean(same: Sequence[Figure]) -> Figure:
    """One figure of all draws: their mean, and its spread where there is more than one."""
    value, spread = metrics.mean_and_spread([each.value for each in same])
    return replace(same[0], value=value, spread=spread if len(same) > 1 else None)


def parser_of_data(doc: str) -> argparse.ArgumentParser:
    """A command line that names a pool, the references and what is distilled from."""
    parser = measure.parser(doc)
    parser.add_argument(
        "--pool", type=Path, nargs="+", default=[_DATA / "toxicity_pool_dev.parquet"]
    )
    parser.add_argument(
        "--references", type=Path, nargs="+", default=[_DATA / "toxicity_ref_dev.parquet"]
    )
    parser.add_argument(
        "--distil",
        type=Path,
        nargs="+",
        default=[_DATA / "dolly.parquet", _DATA / "unsafe_distil.parquet"],
        help="files with prompt, response and label; where there is a split, its rows `distil`",
    )
    parser.add_argument("--candidates", type=int, default=700, help="benign rows to distill from")
    parser.add_argument("--queries", type=int, default=150, help="unsafe rows to distill from")
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="what is kept")
    return parser


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of_data(__doc__)
    parser.add_argument("--benign", type=int, help="benign rows of the pool; default: all")
    parser.add_argument("--draws", type=int, default=1, help="draws of rows to distill from")
    parser.add_argument("--teacher", type=int, default=0, help="benign rows of the teacher's table")
    return parser.parse_args()


def frame_of(paths: Sequence[Path]) -> pl.DataFrame:
    """Prompt, response and label of the rows that may be used."""
    frames = []
    for path in paths:
        frame = pl.read_parquet(path)
        if "split" in frame.columns:
            frame = frame.filter(pl.col("split") == "distil")
        frames.append(frame.select("prompt", "response", "label"))
    return pl.concat(frames).unique(["prompt", "response"], keep="first", maintain_order=True)


def drawn(pool: pl.DataFrame, benign: int | None) -> pl.DataFrame:
    """All labelled rows of a pool and a seeded draw of the benign ones."""
    if benign is None:
        return pool
    others = pool.filter(pl.col("label") != "benign")
    rows = pool.filter(pl.col("label") == "benign")
    return pl.concat([others, rows.sample(min(benign, len(rows)), seed=0)])


def apart(distil: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rows whose prompt is no near-duplicate of a known one, as the product splits its samples."""
    near = rankings.near_duplicates(distil["prompt"].to_list(), known["prompt"].unique().to_list())
    measure.say(f"{near.sum()} of {len(distil)} rows to distill from are too near to the pool")
    return distil.filter(~pl.Series(near))


def sides(
    given: argparse.Namespace, distil: pl.DataFrame, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Queries and candidates to distill from, each in a seeded order."""
    unsafe = distil.filter(pl.col("label") == "unsafe").sample(fraction=1, shuffle=True, seed=seed)
    benign = distil.filter(pl.col("label") == "benign")
    rest = [unsafe[given.queries :], distil.filter(pl.col("label") == "safe_aligned")]
    mixed = pl.concat([*rest, benign.sample(min(given.candidates, len(benign)), seed=seed)])
    mixed = mixed.sample(fraction=1, shuffle=True, seed=seed)
    return samples(unsafe[: given.queries]), samples(mixed)


def table(
    title: str,
    pool: pl.DataFrame,
    queries: list[Sample],
    predictors: Predictors,
) -> Iterator[Figure]:
    """The figures of all predictors on a pool."""
    rows = samples(pool)
    unsafe, safe = ((pool["label"] == name).to_numpy() for name in ("unsafe", "safe_aligned"))
    scored = distilling.scores(predictors, queries, rows)
    means = {name: own.mean(axis=0) for name, (own, _) in scored.items()}
    base = means[UNTRAINED]
    for name, own in means.items():
        yield Figure(title, name, "AUPRC", metrics.auprc(unsafe, own), None, "")
        both = unsafe | safe
        value = metrics.auprc(unsafe[both], own[both])
        yield Figure(title, name, "AUPRC, against safe-aligned", value, None, "")
        for percent in (1, 5):
            least = np.sort(own)[-max(1, round(len(own) * percent / 100))]
            found = float((own[unsafe] >= least).mean())
            yield Figure(title, name, f"recall, {percent} % dropped", found, None, "")
        least = np.quantile(own[unsafe], 0.1, method="lower")
        yield Figure(title, name, "safe lost", float((own[safe] >= least).mean()), None, "")
        ratios = bootstrap(unsafe, own, base)
        for metric, value in zip(("x untrained", "low", "high"), ratios, strict=True):
            yield Figure(title, name, metric, value, None, "")
        yield Figure(title, name, "cost", scored[name][1], None, "ms/sample")


def bootstrap(unsafe: np.ndarray, own: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Ratio of two AUPRCs, and its 95 % interval over draws of the rows."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS):
        rows = draw.integers(0, len(own), len(own))
        if unsafe[rows].any():
            found.append(
                metrics.auprc(unsafe[rows], own[rows]) / metrics.auprc(unsafe[rows], base[rows])
            )
    low, high = np.quantile(found, [0.025, 0.975])
    return metrics.auprc(unsafe, own) / metrics.auprc(unsafe, base), float(low), float(high)


if __name__ == "__main__":
    main()
