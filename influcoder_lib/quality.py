"""Checks of stored artifacts: pure functions from what is on disk to a finding in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from influcoder_lib.errors import listed
from influcoder_lib.evaluation.shard_fidelity import ShardFidelity
from influcoder_lib.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from influcoder_lib.teacher.gradients import GradientFeatures

_UNIT = 2e-3
# Rounding to float16 changes each number of a vector, and so its length, by less than this.
_UNIT_FLOAT16 = 2**-11


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, what was seen in one sentence, and the figures behind it.

    Where it did not pass, `is_error` tells an error from a warning.
    """

    passed: bool
    message: str
    figures: dict[str, float | int] = field(default_factory=dict)
    is_error: bool = True


def counts_add_up(rows_in: int, kept: int, dropped: int, quarantined: int) -> Finding:
    """Rows in = kept + dropped + quarantined."""
    figures = {"rows_in": rows_in, "kept": kept, "dropped": dropped, "quarantined": quarantined}
    message = f"{rows_in} rows in; {kept} kept, {dropped} dropped, {quarantined} quarantined"
    return Finding(rows_in == kept + dropped + quarantined, message, dict(figures))


def ids_unique(sample_ids: Sequence[str]) -> Finding:
    """No sample id twice."""
    twice = len(sample_ids) - len(set(sample_ids))
    return Finding(
        twice == 0, f"{twice} of {len(sample_ids)} ids are there twice", {"twice": twice}
    )


def no_query_in_corpus(query_ids: Sequence[str], sample_ids: Sequence[str]) -> Finding:
    """No query is itself a sample of the corpus: it would score itself, at cosine 1."""
    shared = sorted(set(query_ids) & set(sample_ids))
    message = f"{len(shared)} queries are samples of the corpus" + (
        f": {listed(shared)}; remove them from the query file or from the shard" if shared else ""
    )
    return Finding(not shared, message, {"shared": len(shared)})


def features_sound(features: np.ndarray) -> Finding:
    """Gradient features (n, D) are finite, non-zero and of unit length (within float16)."""
    norms = np.linalg.norm(features.astype(np.float32), axis=1)
    bad = int((~np.isfinite(norms) | (np.abs(norms - 1) > _UNIT)).sum())
    message = f"{bad} of {len(features)} gradient features are not finite, non-zero unit vectors"
    return Finding(bad == 0, message, {"bad": bad, "features": len(features)})


def embeddings_sound(lengths: np.ndarray, rows: int) -> Finding:
    """A vector for each of `rows` samples, of length (N,) 1 as it is stored, in float16."""
    bad = int((~np.isfinite(lengths) | (np.abs(lengths - 1) > _UNIT_FLOAT16)).sum())
    message = f"{len(lengths)} vectors for {rows} samples; {bad} are not of unit length"
    return Finding(bad == 0 and len(lengths) == rows, message, {"bad": bad, "rows": rows})


def sketch_error(engine: "GradientFeatures", samples: Sequence[Sample]) -> Finding:
    """Cosines of sketched gradients against those of the full ones, pair by pair.

    The bound is five standard deviations of a CountSketch cosine, 5 / sqrt(D).
    """
    spans = engine.spans.encode(samples)
    full = engine.gradients(spans)
    sketch = engine.sketch
    accumulator = sketch.empty(len(spans), next(iter(full.values())).device)
    for name, gradient in full.items():
        sketch.add(accumulator, name, gradient)
    exact = np.sum([_gram(each.reshape(len(spans), -1)) for each in full.values()], axis=0)
    error = np.abs(_cosines(_gram(accumulator.T)) - _cosines(exact))
    worst, bound = float(np.triu(error, k=1).max()), 5 / sketch.dimensions**0.5
    message = (
        f"largest error of a sketched cosine {worst:.4f} on {len(spans)} samples, bound {bound:.4f}"
    )
    return Finding(worst <= bound, message, {"largest_error": worst, "bound": bound})


def same_vectors(left: np.ndarray, right: np.ndarray) -> Finding:
    """Two encoders gave exactly the same vectors (n, d)."""
    differing = int((left != right).any(axis=1).sum())
    message = f"{differing} of {len(left)} texts have another vector in the registry's copy"
    return Finding(differing == 0, message, {"differing": differing, "texts": len(left)})


def beats(own: float, other: float, names: tuple[str, str]) -> Finding:
    """The first merit is above the second; if not, that is a warning."""
    message = f"{names[0]} {own:.3f}, {names[1]} {other:.3f} on the test split"
    return Finding(own > other, message, {names[0]: own, names[1]: other}, is_error=False)


def fidelity_holds(found: ShardFidelity) -> Finding:
    """The encoder in use follows the gradients of this shard about as well as it should.

    A weak shard is a warning, a failed one an error.
    """
    if found.per_query is None or found.low is None or found.high is None:
        message = f"not measured: {found.candidates} candidates that the encoder was not trained on"
        return Finding(True, message, {"candidates": found.candidates})
    message = (
        f"{found.verdict}: fidelity {found.per_query:.3f} ({found.low:.3f} to {found.high:.3f}) on "
        f"{found.candidates} candidates of the shard, {found.expected:.3f} on the test split"
    )
    figures = {
        "fidelity": found.per_query,
        "low": found.low,
        "high": found.high,
        "expected": found.expected,
        "candidates": found.candidates,
    }
    return Finding(
        found.verdict in ("sound", "unknown"), message, figures, found.verdict == "failed"
    )


def _gram(rows: "Tensor") -> np.ndarray:
    """Inner products (n, n) of rows (n, d)."""
    return (rows @ rows.T).cpu().numpy()


def _cosines(gram: np.ndarray) -> np.ndarray:
    norms = np.sqrt(gram.diagonal())
    return gram / norms[:, None] / norms[None, :]
