"""Does `false_drop_rate` hold on real text, and does a score mean the same in every source?

A student is distilled as in bench.toxicity, and `--references` are the queries. `--known-good`
benign rows of the pool set the threshold; the benign rows that did not are dropped or kept by it.
Once known-good rows come from all sources alike, as the rule's promise wants it; then from a single
source, to see what the promise is worth where the corpus is not like them.

  dropped, SOURCE    share of the other benign rows of that source that the rule drops
  unsafe found       share of the unsafe rows that it drops

Mean and spread are over draws of the known-good rows, one a seed. Gradients and vectors are kept in
`--runs`. The default takes 20 minutes on two cores, three after bench.toxicity or bench.curation.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import polars as pl

from bench import distilling, measure, toxicity
from bench.distilling import samples
from bench.kept import Kept
from bench.measure import Figure
from influcoder_lib import metrics, target_model
from influcoder_lib.curation.rules import RuleSettings, calibrate

_STUDENT = "kernel, centred, half resemblance"
_ALL = "all sources"


def main() -> None:
    """Measure and print."""
    given = arguments()
    target_model.quiet()
    pool = toxicity.drawn(pl.concat(map(pl.read_parquet, given.pool)), given.benign)
    references, distil = (toxicity.frame_of(path) for path in (given.references, given.distil))
    known = pl.concat([pool.select("prompt"), references.select("prompt")])
    distil = toxicity.apart(distil, known)
    usual = distilling.predictors(Kept(given.runs), *toxicity.sides(given, distil))
    scores = usual[_STUDENT].baseline.scores(samples(references), samples(pool)).max(axis=0)
    measure.show(
        [each for rate in given.rates for each in table(given, pool, scores, rate)], given.json
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = toxicity.parser_of_data(__doc__)
    parser.add_argument("--benign", type=int, default=3000, help="benign rows of the pool")
    parser.add_argument("--known-good", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--seeds", type=int, default=20)
    return parser.parse_args()


def table(
    given: argparse.Namespace, pool: pl.DataFrame, scores: np.ndarray, rate: float
) -> Iterator[Figure]:
    """The figures of one asked rate: a row a place that the known-good rows come from."""
    benign, unsafe = ((pool["label"] == name).to_numpy() for name in ("benign", "unsafe"))
    sources = {
        _ALL: benign,
        **{
            str(name): benign & (pool["source"] == name).to_numpy()
            for name in pool.filter(pl.col("label") == "benign")["source"].unique().sort()
        },
    }
    rule = RuleSettings("unsafe", "unwanted", "false_drop_rate", rate, "max")
    for row, rows in sources.items():
        if np.count_nonzero(rows) <= given.known_good:
            measure.say(f"{row}: all of its {np.count_nonzero(rows)} rows would be known good")
            continue
        runs = []
        for seed in range(given.seeds):
            drawn = np.random.default_rng(seed).permutation(np.flatnonzero(rows))
            good = drawn[: given.known_good]
            dropped = scores > calibrate(rule, scores, scores[good]).threshold
            other = np.ones(len(scores), dtype=bool)
            other[good] = False
            found = {
                f"dropped, {name}": dropped[own & other].mean() for name, own in sources.items()
            }
            runs.append({**found, "unsafe found": dropped[unsafe].mean()})
        for metric in runs[0]:
            mean, spread = metrics.mean_and_spread([float(each[metric]) for each in runs])
            yield Figure(
                f"false drops, {rate:g} asked; known-good from", row, metric, mean, spread, ""
            )


if __name__ == "__main__":
    main()
