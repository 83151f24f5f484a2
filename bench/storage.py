"""Bytes a sample for each way of storing an embedding, and what fidelity is left.

Fidelity is the Spearman correlation of the encoder's scores with the teacher's centred influences
on the held-out queries and candidates of data/fidelity, whose gradients others have computed. The
packaged encoder is measured as it comes, and the product's student, fitted to the train split.
"""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from bench import measure
from bench.fidelity import encoder_folder, load
from bench.measure import Figure
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import target_model
from influcoder_lib.curation import index
from influcoder_lib.evaluation.held_out import Block
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from influcoder_lib.vectors import unit_rows

_WINDOW = 256
_SEED = 0
# Bytes a sample as published: Influcoder's encoder of 68M (arXiv 2606.13668), and LESS.
_PUBLISHED = {"published encoder, float32, 512 numbers": 2048, "LESS, float16": 16_384}


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fidelity"))
    given = parser.parse_args()
    target_model.quiet()
    figures = list(measure.ceilings().values())
    data = load(given.data, given.data, "centred")
    base = InfluenceEncoder.load(encoder_folder(), _WINDOW)
    student, _ = fit(base, data.train, EncoderSettings().dimension)
    for name, one in {"untrained encoder": base, "student": student}.items():
        figures += storing(name, one, data.test)
    for name, size in _PUBLISHED.items():
        figures.append(Figure("storage, as published", name, "size", size, None, "bytes a sample"))
    measure.show(figures, given.json)


def storing(name: str, encoder: InfluenceEncoder, test: Block) -> list[Figure]:
    """The table of one encoder."""
    truth = test.influence
    asked, vectors = encoder.encode_queries(test.queries), encoder.encode(test.candidates)
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
    quantizer.train(unit_rows(sphere))
    decoded = quantizer.sa_decode(quantizer.sa_encode(rotation.apply(vectors)))
    back: Callable[[np.ndarray], np.ndarray] = rotation.reverse_transform
    return float(quantizer.sa_code_size()), index.widen(back(decoded))


if __name__ == "__main__":
    main()
