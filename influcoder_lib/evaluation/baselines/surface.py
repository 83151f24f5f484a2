"""How texts are set and no word of what they say: a baseline above length, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from influcoder_lib.errors import DataError
from influcoder_lib.samples import Sample
from influcoder_lib.student.surface import sample_surfaces

_ALPHAS = 10.0 ** np.arange(-1, 5.1)


@dataclass(frozen=True)
class SurfaceMap:
    """Linear in the surface features of a query's prompt and response, and in a candidate's.

    With truth = U S Vᵀ, `queries` maps a query's features to its row of U S, and `candidates` a
    candidate's to its row of V: scikit-learn regressions.
    """

    queries: Any
    candidates: Any
    name: str = "surface map"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32, in the unit of the truth that was fitted."""
        if not queries or not candidates:
            return np.zeros((len(queries), len(candidates)), dtype=np.float32)
        left = self.queries.predict(_features(queries))
        return (left @ self.candidates.predict(_features(candidates)).T).astype(np.float32)


def fit(
    train_queries: Sequence[Sample], train_candidates: Sequence[Sample], truth: ArrayLike
) -> SurfaceMap:
    """The map fitted to `truth` (Q, N), each ridge penalty the one of least leave-one-out error.

    Raises:
        DataError: fewer than two training queries or candidates, or a truth that is not finite.
    """
    target = np.asarray(truth, dtype=np.float64)
    if min(target.shape) < 2 or not np.all(np.isfinite(target)):
        raise DataError(
            "The surface map cannot be fitted.",
            allowed="finite influences of at least two queries on at least two candidates",
        )
    left, values, right = np.linalg.svd(target, full_matrices=False)
    return SurfaceMap(
        _ridge().fit(_features(train_queries), left * values),
        _ridge().fit(_features(train_candidates), right.T),
    )


def _ridge() -> Any:
    return make_pipeline(StandardScaler(), RidgeCV(alphas=_ALPHAS, alpha_per_target=True))


def _features(samples: Sequence[Sample]) -> NDArray[np.float64]:
    return sample_surfaces(samples).astype(np.float64)
