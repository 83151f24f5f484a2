"""Bytes a sample for each way of storing an embedding, and what fidelity is left.

Fidelity is the Spearman correlation of the encoder's scores with the teacher's centred influences
on the held-out queries and candidates of data/fidelity, whose gradients others have computed. The
packaged encoder is measured as it comes; --encoder FOLDER adds a trained one.
"""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import polars as pl

from bench import measure
from bench.measure import Figure
from influcoder_lib import models
from influcoder_lib.curation import index
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder

_WINDOW = 256
_SEED = 0
# Bytes a sample as published (METHOD.md, section 4): the encoder of 68M, and LESS.
_PUBLISHED = {"published encoder, float32, 512 numbers": 2048, "LESS, float16": 16_384}


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fidelity"))
    parser.add_argument("--encoder", type=Path, help="folder of a trained encoder")
    given = parser.parse_args()
    figures = list(measure.ceilings().values())
    packaged = models.check_encoder(models.locate("all-minilm-l6-v2", Path()))
    encoders = {"untrained encoder": packaged}
    if given.encoder:
        encoders["trained encoder"] = given.encoder
    for name, folder in encoders.items():
        figures += storing(name, InfluenceEncoder.load(folder, _WINDOW), given.data)
    for name, size in _PUBLISHED.items():
        figures.append(Figure("storage, as published", name, "size", size, None, "bytes a sample"))
    measure.show(figures, given.json)


def storing(name: str, encoder: InfluenceEncoder, data: Path) -> list[Figure]:
    """The table of one encoder."""
    queries = pl.read_parquet(data / "queries.parquet").with_row_index()
    candidates = pl.read_parquet(data / "candidates.parquet").with_row_index()
    queries = queries.filter(pl.col("split") == "dev")
    candidates = candidates.filter(pl.col("split") == "dev")
    truth = np.load(data / "influence_centred.npy")[queries["index"]][:, candidates["index"]]
    asked = encoder.encode(samples(queries, "target"))
    vectors = encoder.encode(samples(candidates, "response"))
    exact = asked @ vectors.T
    figures = []
    for way, (size, stored) in ways(vectors).items():
        scores = asked @ stored.T
        row = (f"storage, {name}", way)
        moved = float(np.abs(scores - exact).max())
        figures += [
            Figure(*row, "size", size, None, "bytes a sample"),
            Figure(*row, "fidelity per query", fidelity(scores, truth), None, ""),
            Figure(*row, "aggregated", fidelity(mean(scores), mean(truth)), None, ""),
            Figure(*row, "largest change of a score", moved, None, ""),
        ]
    return figures


def samples(frame: pl.DataFrame, response: str) -> list[Sample]:
    """Rows as samples."""
    return [Sample("", *row) for row in frame.select("prompt", response).iter_rows()]


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the queries (1, N)."""
    return scores.mean(axis=0, keepdims=True)


def fidelity(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean Spearman correlation of the rows."""
    return float(spearman_rows(scores, truth).mean())


def ways(vectors: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Bytes a sample, and the vectors (N, d) that are read back, for each way of storing them."""
    width = vectors.shape[1]
    found: dict[str, tuple[float, np.ndarray]] = {
        "float32": (4.0 * width, vectors),
        "float16, as the product keeps them": (2.0 * width, index.widen(index.narrow(vectors))),
    }
    for bits in (8, 4, 3, 2):
        kind = getattr(faiss.ScalarQuantizer, f"QT_{bits}bit_tqmse")
        quantizer = faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
        found[f"{bits} bits a number, after a rotation"] = quantised(quantizer, vectors)
    return found


def quantised(quantizer: faiss.Index, vectors: np.ndarray) -> tuple[float, np.ndarray]:
    """Bytes a sample and vectors of a quantizer that is fitted to the unit sphere, not to data."""
    width = vectors.shape[1]
    rotation = faiss.RandomRotationMatrix(width, width)
    rotation.init(_SEED)
    sphere = np.random.default_rng(_SEED).standard_normal((5000, width), dtype=np.float32)
    quantizer.train(sphere / np.linalg.norm(sphere, axis=1, keepdims=True))
    decoded = quantizer.sa_decode(quantizer.sa_encode(rotation.apply(vectors)))
    back: Callable[[np.ndarray], np.ndarray] = rotation.reverse_transform
    return float(quantizer.sa_code_size()), index.widen(back(decoded))


if __name__ == "__main__":
    main()
