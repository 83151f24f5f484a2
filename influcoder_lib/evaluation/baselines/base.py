"""The one interface of everything that ranks candidates, and the checks that all share."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from influcoder_lib.samples import Sample


class Baseline(Protocol):
    """A predictor of influence: higher scores mean more influence on the query."""

    @property
    def name(self) -> str:
        """What tables and reports call it."""
        ...

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32, finite, of every candidate for every query."""
        ...
