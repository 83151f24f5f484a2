"""What an encoder in use is measured by: samples that it was not trained on, frozen beside it.

Thresholds are set on the held-back candidates, and the fidelity on each shard is taken against the
gradients of the held-out queries. The set moves with the encoder, so that neither a new
distillation set nor a challenger that fails moves anybody's threshold.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from influcoder_lib.metrics import Fidelity
from influcoder_lib.samples import Sample, to_samples
from influcoder_lib.tables import load_table
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.distillation_set import DistillationSet


@dataclass(frozen=True)
class CalibrationSet:
    """Held-back candidates and held-out queries of one distillation set.

    `query_features` (Q, D) float16 are the queries' unit features, uncentred; `mean` (D,) float32
    that of the train candidates; `trained_on` the train candidates' ids. `teacher` names what the
    features were made by, `influence` is `centred` or `raw`, and `expected` the encoder's fidelity
    on the test split.
    """

    candidates: pl.DataFrame
    trained_on: list[str]
    queries: pl.DataFrame
    query_features: np.ndarray
    mean: np.ndarray
    teacher: str
    influence: str
    expected: Fidelity

    @classmethod
    def of(
        cls, frozen: DistillationSet, teacher: str, influence: str, expected: Fidelity
    ) -> "CalibrationSet":
        """The part of a distillation set that no encoder is trained on."""
        is_train = frozen.candidates["split"] == "train"
        held_out = frozen.queries["split"] != "train"
        return cls(
            frozen.candidates.filter(~is_train),
            frozen.candidates.filter(is_train)["sample_id"].to_list(),
            frozen.queries.filter(held_out),
            frozen.query_features[held_out.to_numpy()],
            frozen.mean,
            teacher,
            influence,
            expected,
        )

    def samples(self) -> list[Sample]:
        """The held-out queries as samples, in their order."""
        return to_samples(self.queries)

    def truth(self, candidate_features: np.ndarray) -> np.ndarray:
        """Influence (Q, N) float32 of the held-out queries on candidates with these unit features
        (N, D), uncentred."""
        queries, candidates = self.query_features, candidate_features
        if self.influence == "centred":
            queries = rankings.centre(queries, self.mean)
            candidates = rankings.centre(candidates, self.mean)
        return rankings.influence(queries, candidates)

    def save(self, folder: Path) -> None:
        """Write the set's files into a new folder."""
        folder.mkdir(parents=True)
        self.candidates.write_parquet(folder / "candidates.parquet")
        self.queries.write_parquet(folder / "queries.parquet")
        np.save(folder / "query_features.npy", self.query_features)
        np.save(folder / "centring_mean.npy", self.mean)
        facts = {
            "teacher": self.teacher,
            "influence": self.influence,
            "expected": asdict(self.expected),
            "trained_on": self.trained_on,
        }
        (folder / "calibration.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "CalibrationSet":
        """Read what `save` wrote."""
        facts = json.loads((folder / "calibration.json").read_text())
        return cls(
            candidates=load_table(folder / "candidates.parquet"),
            queries=load_table(folder / "queries.parquet"),
            query_features=np.load(folder / "query_features.npy", allow_pickle=False),
            mean=np.load(folder / "centring_mean.npy", allow_pickle=False),
            trained_on=facts["trained_on"],
            teacher=facts["teacher"],
            influence=facts["influence"],
            expected=Fidelity(**facts["expected"]),
        )
