"""A second pair of sources for bench.fidelity: unsafe replies ask, benign rows are candidates.

Writes a folder of the shape of ../shared/data/fidelity into `--out`: the rows that bench.toxicity
distils from, with their gradients, a seeded third of both sides as the split `dev`, which is
apart from the others by prompt. Then

    python -m bench.fidelity --train FOLDER --test FOLDER

The influence is that of the same sketches which are trained on. Gradients are kept in `--runs`. The
default takes seven minutes on two cores, none after bench.toxicity or bench.curation.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from bench import measure, toxicity
from bench.folder import write_features, write_influence, write_samples
from bench.kept import Kept
from influcoder_lib import target_model
from influcoder_lib.evaluation.baselines import gradient
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings

_DEV = 1 / 3


def main() -> None:
    """Compute gradients and write the folder."""
    given = arguments()
    target_model.quiet()
    pool, references, distil = (
        toxicity.frame_of(path) for path in (given.pool, given.references, given.distil)
    )
    known = pl.concat([pool.select("prompt"), references.select("prompt")])
    distil = toxicity.apart(distil, known)
    benign = distil.filter(pl.col("label") == "benign").select("prompt", "response")
    queries, candidates = toxicity.sides(given, distil)
    among = set(benign.iter_rows())
    candidates = [each for each in candidates if (each.prompt, each.response) in among]
    kept = Kept(given.runs)
    features = [gradient.features_of(kept.gradients, side) for side in (queries, candidates)]
    write(given.out, queries, candidates, *features)
    measure.say(f"{len(queries)} queries x {len(candidates)} candidates in {given.out}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = toxicity.parser_of_data(__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/runs/pair"))
    return parser.parse_args()


def write(
    folder: Path,
    queries: list[Sample],
    candidates: list[Sample],
    asked: np.ndarray,
    offered: np.ndarray,
) -> None:
    """Write the samples, their features (n, D), and the influence between them, raw and centred by
    the mean of the candidates that are trained on."""
    split = _splits(candidates)
    write_samples(folder, (queries, _splits(queries)), (candidates, split))
    write_features(folder, asked, offered)
    mean = rankings.centring_mean(offered[np.array(split) == "train"])
    write_influence(folder, asked, offered, mean)


def _splits(side: list[Sample]) -> list[str]:
    """`dev` for a seeded third of the prompts, `train` for the others."""
    prompts = sorted({rankings.normalise_prompt(each.prompt) for each in side})
    drawn = np.random.default_rng(0).permutation(len(prompts))[: round(_DEV * len(prompts))]
    dev = {prompts[row] for row in drawn}
    return ["dev" if rankings.normalise_prompt(each.prompt) in dev else "train" for each in side]


if __name__ == "__main__":
    main()
