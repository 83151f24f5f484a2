"""More gradients than ../shared/data/fidelity holds, for bench.scaling: how far do they carry?

Writes `--out`/train and `--out`/test. Judged are that folder's `dev` rows; trained on are its other
rows and all that BBH and Dolly have beside them, two queries to five candidates, but for those that
ask a question of `dev` or nearly repeat a prompt of its candidates. Gradients are the product's
own, in the chat template on both sides (that folder's queries are `Q: ... A:`), and the truth is
that of a wider sketch with another seed. Then

    python -m bench.scaling --train FOLDER/train --test FOLDER/test --gradients 1200 2400 4800

Gradients are kept in `--runs`. The default takes two minutes on an H100 and hours on two cores,
`--candidates 40` twelve minutes, most of them for the rows that are judged.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import polars as pl

from bench import measure
from bench.distilling import samples
from bench.folder import write_features, write_influence, write_samples
from bench.kept import TEACHER, Kept
from influcoder_lib import target_model
from influcoder_lib.evaluation.baselines.gradient import features_of
from influcoder_lib.samples import Sample
from influcoder_lib.teacher import rankings

_WIDE = replace(TEACHER, sketch_dimensions=32_768, sketch_seed=1)
# Queries to a candidate, as in ../shared/data/fidelity.
_QUERIES = 0.4
# The mean of so many candidates centres the truth.
_CENTRED_BY = 1000


def main() -> None:
    """Compute gradients and write the folders."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--candidates", type=int, help="at most so many to train on; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench/runs/larger"))
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="what is kept")
    given = parser.parse_args()
    target_model.quiet()
    judged, trained = parts(given)
    kept = Kept(given.runs)
    wide = kept.gradients_by(_WIDE)
    asked, offered, known = (
        features_of(wide, side) for side in (*judged, trained[1][:_CENTRED_BY])
    )
    write_samples(given.out / "test", *((side, ["dev"] * len(side)) for side in judged))
    write_influence(given.out / "test", asked, offered, rankings.centring_mean(known))
    features = [features_of(kept.gradients, side) for side in trained]
    write_samples(given.out / "train", *((side, ["train"] * len(side)) for side in trained))
    write_features(given.out / "train", *features)
    measure.say(f"{len(trained[0])} queries and {len(trained[1])} candidates in {given.out}")


def parts(given: argparse.Namespace) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """Queries and candidates to be judged on, and those to train on."""
    folder = given.data / "fidelity"
    questions, rows = (
        pl.read_parquet(folder / f"{name}.parquet").rename({response: "response"})
        for name, response in (("queries", "target"), ("candidates", "response"))
    )
    judged = [each.filter(pl.col("split") == "dev") for each in (questions, rows)]
    bbh = pl.read_parquet(given.data / "bbh.parquet").rename({"target": "response"})
    dolly = pl.read_parquet(given.data / "dolly.parquet")
    dolly = dolly.filter(pl.col("split") != "fidelity")
    candidates = _joined(rows.filter(pl.col("split") == "train"), dolly)
    near = rankings.near_duplicates(
        candidates["prompt"].to_list(), judged[1]["prompt"].unique().to_list()
    )
    candidates = candidates.filter(~pl.Series(near))[: given.candidates]
    queries = _joined(questions.filter(pl.col("split") == "train"), bbh)
    queries = queries.join(judged[0], on="prompt", how="anti", maintain_order="left")
    queries = queries[: round(_QUERIES * len(candidates))]
    return [samples(each) for each in judged], [samples(each) for each in (queries, candidates)]


def _joined(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Prompts and responses of both, none twice."""
    both = pl.concat([each.select("prompt", "response") for each in (first, second)])
    return both.unique(keep="first", maintain_order=True)


if __name__ == "__main__":
    main()
