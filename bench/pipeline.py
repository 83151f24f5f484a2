"""Rows a second and peak memory from raw file to kept and dropped rows, and what a shard costs.

The asset functions themselves run, on texts of Dolly recombined, in a process of their own and
without Dagster's event log. Around them is a home of tiny models, whose encoder is replaced by a
stub: a unit vector of 384 numbers that costs nothing. So the figures are those of the pipeline.
What one more shard costs in a corpus of --corpora shards is measured as bench.refresh does.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bench import measure
from bench.measure import Figure
from bench.refresh import CORPORA, adding_a_shard
from influcoder_assets import champion
from influcoder_assets.maker import Task, current_facts, make
from influcoder_assets.workspace import Workspace
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.rows import open_rows
from influcoder_lib.samples import Sample
from influcoder_lib.vectors import unit_rows
from tests.assets import tiny_home

WIDTH = 384
STAGES = (
    "corpus",
    "gradient_projections",
    "corpus_embeddings",
    "influence_scores",
    "filtered_dataset",
)
_FOLDER = "measured"
_WRITTEN_AT_ONCE = 50_000


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--corpora", type=int, nargs="*", default=list(CORPORA), help="shards")
    given = parser.parse_args()
    ceilings, _ = measure.alone(measure.ceilings)
    figures = list(ceilings.values())
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        measure.alone(make_base, base)
        for rows in given.rows:
            for shards in given.shards:
                figures += filtering(base, given.data / "dolly.parquet", rows, shards)
    if given.corpora:
        figures += adding_a_shard(given.corpora)
    measure.show(figures, given.json)


def make_base(home: Path) -> None:
    """A home in which everything is made that does not belong to a shard."""
    tiny_home.build_home(home)
    failures = tiny_home.refresh(home).failures
    if failures:
        raise RuntimeError(failures[0])


def filtering(base: Path, texts: Path, rows: int, shards: int) -> Iterator[Figure]:
    """Figures of one corpus of so many rows in so many files."""
    home = tiny_home.copy_home(base, base.with_name(f"{rows}-{shards}"))
    write_corpus(home / "corpus" / _FOLDER, pl.read_parquet(texts), rows, shards)
    found, peak = measure.alone(filter_corpus, home)
    shutil.rmtree(home)
    total = sum(found.values())
    name = f"{rows:,} rows, {'one file' if shards == 1 else f'{shards} files'}"
    for stage, seconds in {**found, "all": total}.items():
        yield Figure("pipeline", name, stage, rows / seconds, None, "rows/s")
    yield Figure("pipeline", name, "time", total, None, "s")
    yield Figure("pipeline", name, "peak memory", peak, None, "MiB")


def write_corpus(folder: Path, texts: pl.DataFrame, rows: int, shards: int) -> None:
    """Files of distinct samples: every prompt of the texts with ever other responses."""
    folder.mkdir(parents=True)
    edges = np.linspace(0, rows, shards + 1).astype(int)
    for shard, (start, end) in enumerate(itertools.pairwise(edges)):
        with (folder / f"{shard:05d}.jsonl").open("wb") as stream:
            for first in range(start, end, _WRITTEN_AT_ONCE):
                number = np.arange(first, min(first + _WRITTEN_AT_ONCE, end))
                turn, prompt = np.divmod(number, len(texts))
                response = (prompt + turn * 17) % len(texts)
                texts.select(
                    prompt=pl.col("prompt").gather(prompt),
                    response=pl.col("response").gather(response),
                    label=pl.col("category").gather(response),
                ).write_ndjson(stream)


def filter_corpus(home: Path) -> dict[str, float]:
    """Seconds of every stage over all shards of the corpus."""
    champion.stored_vectors = _stored_stub
    shards = [shard for shard in Workspace.open(home).shards if shard.startswith(f"{_FOLDER}.")]
    for asset in ("query_embeddings", "calibration_scores", "decision_rule"):
        _make(home, asset, [None])
    return {
        stage: measure.seconds(lambda stage=stage: _make(home, stage, shards)) for stage in STAGES
    }


def _make(home: Path, asset: str, shards: Sequence[str | None]) -> None:
    workspace = Workspace.open(home)
    facts = current_facts(workspace)
    for shard in shards:
        make(workspace, facts, asset, shard, "bench")


def _stored_stub(task: Task, encoder: str, folder: Path, window: int) -> StoredVectors:
    return StoredVectors(Stub, open_rows(task.workspace.data / "rows" / "stub"), task.say)


class Stub:
    """An encoder that costs nothing: a unit vector drawn from the sample's id."""

    def read(
        self, samples: Sequence[Sample], role: str = "candidate", resemblance: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = "".join(sample.sample_id[:16] for sample in samples)
        seeds = np.frombuffer(bytes.fromhex(ids), np.uint64).reshape(-1, 1)
        bits = (seeds * np.arange(1, 2 * WIDTH, 2, dtype=np.uint64)) >> np.uint64(40)
        vectors = bits.astype(np.float32) / np.float32(1 << 23) - 1
        return unit_rows(vectors), np.zeros(len(samples), bool)


if __name__ == "__main__":
    main()
