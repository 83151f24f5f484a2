"""Searching the embeddings of a corpus: build time, bytes a vector, recall and time of one query.

Real texts are few, so their vectors are extended: each further one lies at random between two real
vectors of the same cluster, with noise. Queries are real texts that are not among them. Recall is
the share of the ten nearest that are found, against an exact search in float32. The vectors are the
packaged encoder's, and those of the product's student, fitted to data/fidelity.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import polars as pl

from bench import measure
from bench.fidelity import encoder_folder, load
from bench.measure import Figure
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib.curation import index
from influcoder_lib.curation.index import CODES, VECTORS, Segments
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from influcoder_lib.vectors import unit_rows

ENCODERS = ("packaged encoder", "student")
_TOP = 10
_CLUSTERS = 64
_NOISE = 0.3
_BLOCK = 10_000
_WINDOW = 64
_TEXTS = ("dolly.parquet", "toxicity_pool_dev.parquet")


@dataclass(frozen=True)
class Way:
    """A search for the rows nearest to a query; seconds to build and open it; bytes a vector."""

    search: Callable[[np.ndarray], np.ndarray]
    build: float
    open: float
    on_disk: float
    in_memory: float


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--vectors", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--texts", type=int, default=4000, help="real texts that are embedded")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS)
    parser.add_argument("--hnsw-up-to", type=int, default=10_000, help="it is slow to build")
    given = parser.parse_args()
    figures = list(measure.ceilings().values())
    for name in given.encoders:
        queries, real = embedded(name, given)
        for count in given.vectors:
            figures += searching(name, queries, real, count, given)
    measure.show(figures, given.json)


def embedded(name: str, given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of different real texts: queries, and what is searched; (n, d) float32."""
    tables = [pl.read_parquet(given.data / each).select("prompt", "response") for each in _TEXTS]
    count = given.texts + given.queries
    texts = pl.concat(tables).unique(maintain_order=True).sample(count, seed=0, shuffle=True)
    samples = [Sample("", *row) for row in texts.iter_rows()]
    encoder = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    if name == "student":
        fidelity = given.data / "fidelity"
        train = load(fidelity, fidelity, "centred").train
        encoder = fit(encoder, train, EncoderSettings().dimension)[0]
    measure.say(f"{name}: embeds {count} texts")
    return encoder.encode_queries(samples[: given.queries]), encoder.encode(
        samples[given.queries :]
    )


def extended(real: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """`count` unit vectors like the real ones, in blocks."""
    width = real.shape[1]
    clusters = faiss.Kmeans(width, min(_CLUSTERS, len(real) // 40), niter=5, seed=0)
    clusters.train(real)
    own = clusters.index.search(real, 1)[1][:, 0]
    members = [np.flatnonzero(own == each) for each in range(clusters.k)]
    draw = np.random.default_rng(0)
    for start in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - start)
        one = draw.integers(0, len(real), rows)
        other = np.array([draw.choice(members[own[each]]) for each in one])
        share = draw.random((rows, 1), dtype=np.float32)
        noise = draw.standard_normal((rows, width), dtype=np.float32) * (_NOISE / width**0.5)
        block = share * real[one] + (1 - share) * real[other] + noise
        yield unit_rows(block)


def searching(
    name: str, queries: np.ndarray, real: np.ndarray, count: int, given: argparse.Namespace
) -> list[Figure]:
    """The figures at one number of vectors."""
    measure.say(f"{name}: {count} vectors")
    width = real.shape[1]
    exact = faiss.IndexFlatIP(width)
    for block in extended(real, count):
        exact.add(block)
    vectors = faiss.rev_swig_ptr(exact.get_xb(), count * width).reshape(count, width)
    truth = exact.search(queries, _TOP)[1]
    table = f"search, {count:,} vectors of the {name}, width {width}"
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        paths = list(written(vectors, Path(folder)))
        wrote, began = time.perf_counter() - began, time.perf_counter()
        segments = Segments(paths)
        opened = time.perf_counter() - began
        on_disk = sum(path.stat().st_size for path in itertools.chain(*paths)) / count
        in_memory = sum(codes.stat().st_size for _, codes in paths) / count

        def ours(query: np.ndarray) -> np.ndarray:
            return segments.nearest(query, _TOP).rows

        whole = 4.0 * width
        ways = {
            "ours": Way(ours, wrote, opened, on_disk, in_memory),
            "exact, float32": Way(by(exact), 0.0, 0.0, whole, whole),
        }
        if count <= given.hnsw_up_to:
            graph = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efSearch = 128
            built = measure.seconds(lambda: graph.add(vectors))
            size = whole + 4 * 2 * 32
            ways["HNSW, float32"] = Way(by(graph), built, 0.0, size, size)
        return list(rows_of(table, ways, queries, truth))


def written(vectors: np.ndarray, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The vectors as segments of shards of _BLOCK rows each."""
    for start in range(0, len(vectors), _BLOCK):
        own = folder / str(start)
        own.mkdir()
        index.write_segment([index.narrow(vectors[start : start + _BLOCK])], own)
        yield own / VECTORS, own / CODES


def by(searched: faiss.Index) -> Callable[[np.ndarray], np.ndarray]:
    """The nearest rows of one query by a faiss index."""
    return lambda query: searched.search(query[None], _TOP)[1][0]


def rows_of(
    table: str, ways: dict[str, Way], queries: np.ndarray, truth: np.ndarray
) -> Iterator[Figure]:
    """A row for each way; queries go to all ways in turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    hits: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way.search(queries[0])
    for query, nearest in zip(queries, truth, strict=True):
        for name, way in ways.items():
            began = time.perf_counter()
            found = way.search(query)
            taken[name].append(1000 * (time.perf_counter() - began))
            hits[name].append(len(set(found) & set(nearest)) / _TOP)
    for name, way in ways.items():
        yield Figure(table, name, "build", way.build, None, "s")
        yield Figure(table, name, "open", way.open, None, "s")
        yield Figure(table, name, "on disk", way.on_disk, None, "bytes a vector")
        yield Figure(table, name, "in memory", way.in_memory, None, "bytes a vector")
        yield Figure(table, name, "recall@10", float(np.mean(hits[name])), None, "")
        yield measure.figure(table, name, "p50", taken[name], "ms")
        yield Figure(table, name, "p99", float(np.quantile(taken[name], 0.99)), None, "ms")


if __name__ == "__main__":
    main()
