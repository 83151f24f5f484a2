"""Tracing false facts to the samples that teach them, as DATE-LM does with CounterFact.

A sample is a prompt about a subject and the false answer `target_new`. Those rows of the pool are
relevant to a query that exchange the same true answer for the same false one. `--facts` has the
rows: `--queries` of them ask, of pairs of answers that at least five rows share; `--pool` rows, all
of the queries' pairs among them, are searched; `--candidates` others, and half as many queries, of
pairs that no query asks for, are distilled from.

Recall@50, the mean reciprocal rank of the first relevant row, and what a row costs. What needs the
target model for every row stands beside: the teacher's own gradients, LESS, LoGra and Rep-Sim. All
of that is kept in `--runs`, with what it cost when it was made. The default takes about an hour on
two cores, `--queries 10 --pool 150 --candidates 60` about five minutes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from bench import distilling, measure
from bench.distilling import Predictors, samples
from bench.kept import Kept
from bench.measure import Figure
from influcoder_lib import metrics, target_model

_LEAST = 5
_TOP = 50


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--facts", type=Path, default=Path("../shared/data/counterfact_dev.parquet")
    )
    parser.add_argument("--queries", type=int, default=66)
    parser.add_argument("--pool", type=int, default=5000, help="rows to search")
    parser.add_argument("--candidates", type=int, default=1000, help="rows to distill from")
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="what is kept")
    given = parser.parse_args()
    target_model.quiet()
    queries, pool, asked, offered = parts(given)
    kept, candidates = Kept(given.runs), samples(offered)
    usual = distilling.predictors(kept, samples(asked), candidates)
    every = usual | distilling.of_target_model(kept, candidates)
    measure.show(list(table(every, queries, pool)), given.json)


def parts(
    given: argparse.Namespace,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Queries and the pool that they search, and queries and candidates to distill from."""
    facts = pl.read_parquet(given.facts).unique(["prompt", "target_new"], maintain_order=True)
    facts = facts.select(
        "prompt",
        response="target_new",
        pair=pl.col("target_true") + pl.lit(" / ") + pl.col("target_new"),
    ).sample(fraction=1, shuffle=True, seed=0)
    shared = facts.filter(pl.len().over("pair") >= _LEAST)
    queries = shared.unique("pair", keep="first", maintain_order=True)[: given.queries]
    rest = facts.join(queries, on=["prompt", "response"], how="anti")
    wanted = rest.filter(pl.col("pair").is_in(queries["pair"].to_list()))
    others = rest.filter(~pl.col("pair").is_in(queries["pair"].to_list()))
    fill = max(0, given.pool - len(wanted))
    pool, left = pl.concat([wanted, others[:fill]]), others[fill:]
    half = given.candidates // 2
    return queries, pool, left[:half], left[half : half + given.candidates]


def table(predictors: Predictors, queries: pl.DataFrame, pool: pl.DataFrame) -> Iterator[Figure]:
    """The figures of all predictors."""
    relevant = queries["pair"].to_numpy()[:, None] == pool["pair"].to_numpy()[None, :]
    title = (
        f"attribution, {len(queries)} queries, {len(pool)} rows, {relevant.sum(axis=1).mean():.0f} "
        "relevant to a query"
    )
    found = distilling.scores(predictors, samples(queries), samples(pool))
    for name, (own, cost) in found.items():
        recall = metrics.recall_at_k(relevant, own, _TOP)
        yield Figure(title, name, f"recall@{_TOP}", recall, None, "")
        yield Figure(title, name, "MRR", metrics.mean_reciprocal_rank(relevant, own), None, "")
        yield Figure(title, name, "cost", cost, None, "ms/sample")


if __name__ == "__main__":
    main()
