"""What a predictor is judged on: held-out queries and candidates with the teacher's influence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from influcoder_lib import metrics
from influcoder_lib.evaluation.baselines import bm25, encoder, length, surface
from influcoder_lib.evaluation.baselines.base import Baseline
from influcoder_lib.evaluation.comparison import (
    ALONE,
    ENCODER,
    UNTRAINED,
    Predictor,
    fidelity_table,
    lengths,
)
from influcoder_lib.metrics import Fidelity
from influcoder_lib.report.model import Table
from influcoder_lib.samples import Sample
from influcoder_lib.teacher.distillation_set import DistillationSet


@dataclass(frozen=True)
class Block:
    """Queries and candidates of one split and the influence (Q, N) float32 between them."""

    queries: list[Sample]
    candidates: list[Sample]
    influence: np.ndarray

    @classmethod
    def of(cls, frozen: DistillationSet, influence: np.ndarray, split: str) -> "Block":
        """The block of one split; `influence` (Q, N) float32 is that of the whole set."""
        own = np.ascontiguousarray(influence[np.ix_(*frozen.rows(split))])
        return cls(*frozen.samples(split), own)

    def fidelity(self, predicted: np.ndarray) -> Fidelity:
        """Fidelity of predicted scores (Q, N) on this block."""
        return metrics.fidelity(predicted, self.influence, *lengths(self.candidates))

    def fidelity_of(self, one: encoder.Encodes) -> Fidelity:
        """Fidelity of an encoder's cosines on this block."""
        return self.fidelity(encoder.EncoderCosine(one).scores(self.queries, self.candidates))

    def table(self, predictors: Sequence[Predictor]) -> Table:
        """The fidelity table of these predictors on this block."""
        note = (
            f"Spearman correlation with the teacher's influence on {len(self.queries)} queries x "
            f"{len(self.candidates)} candidates of the test split; trained predictors: mean and "
            "spread over seeds. 'Length out' takes the ranks of prompt and response length out of "
            "both sides; compare it with the length rows, not with zero."
        )
        return fidelity_table(predictors, self.influence, self.candidates, note)


@dataclass(frozen=True)
class Contenders:
    """All predictors of the comparison, ready to score any queries against any candidates."""

    train: Block
    untrained: encoder.Encodes
    trained: Sequence[encoder.Encodes]

    def predictors(
        self, queries: Sequence[Sample], candidates: Sequence[Sample], resemblance: float = 0.0
    ) -> list[Predictor]:
        """Scores of every predictor, cheapest first, the trained encoder (a matrix a seed) last,
        with this share of plain resemblance, and before it without, where that makes a difference.
        The surface map needs two queries and two candidates to learn from."""
        known = self.train.queries, self.train.candidates, self.train.influence
        single: list[Baseline] = [
            length.ResponseLength(),
            length.fit(*known),
            *([surface.fit(*known)] if min(self.train.influence.shape) > 1 else []),
            bm25.Bm25(),
            encoder.EncoderCosine(self.untrained, UNTRAINED),
        ]
        own = self._own(ENCODER, queries, candidates, resemblance)
        alone = self._own(ALONE, queries, candidates, 0.0) if resemblance else own
        differs = any(map(_differ, alone.scores, own.scores))
        return [
            *(Predictor(each.name, [each.scores(queries, candidates)]) for each in single),
            *([alone] if differs else []),
            own,
        ]

    def _own(
        self, name: str, queries: Sequence[Sample], candidates: Sequence[Sample], share: float
    ) -> Predictor:
        cosines = [encoder.EncoderCosine(one, name, share) for one in self.trained]
        return Predictor(name, [each.scores(queries, candidates) for each in cosines])


def _differ(left: np.ndarray, right: np.ndarray) -> bool:
    return not np.array_equal(left, right)


def teacher_predictors(
    frozen: DistillationSet, query_ids: Sequence[str], candidate_ids: Sequence[str]
) -> list[Predictor]:
    """The teacher's own influence, centred and raw, between these queries and candidates.

    Queries that came after the set was frozen have no gradients; of none but such, there is none.
    """
    asked = set(query_ids)
    rows = [i for i, each in enumerate(frozen.queries["sample_id"]) if each in asked]
    if not rows:
        return []
    at = {each: i for i, each in enumerate(frozen.candidates["sample_id"])}
    columns = [at[each] for each in candidate_ids]
    return [
        Predictor(f"teacher, {kind}", [frozen.influence(kind)[np.ix_(rows, columns)]])
        for kind in ("centred", "raw")
    ]
