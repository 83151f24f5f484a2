"""How the encoder in use stands: beside the latest one trained, on each shard, and how far the
frozen distillation set that it learnt from has fallen behind."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any

VERDICTS = ("failed", "weak", "unknown", "sound")
"""On the encoder's fidelity, worst first."""


@dataclass(frozen=True)
class MeasuredShard:
    """The encoder's fidelity to the teacher on one shard's draw, with its bootstrap interval;
    `expected` is its fidelity on the test split. None is what could not be measured."""

    shard: str
    verdict: str
    per_query: float | None
    low: float | None
    high: float | None
    expected: float | None
    queries: int | None
    candidates: int | None


@dataclass(frozen=True)
class DistillationGap:
    """What of today's corpus and queries the distillation set was not made from.

    `new_shards` are not in it, `changed_shards` are with other candidates. No query of the
    `unlearnt` behaviors is in it.
    """

    shards: int
    new_shards: int
    changed_shards: int
    queries: int
    new_queries: int
    unlearnt: tuple[str, ...]

    @property
    def is_closed(self) -> bool:
        """Nothing is missing from the set."""
        return not (self.new_shards or self.changed_shards or self.new_queries)


@dataclass(frozen=True)
class Standing:
    """The encoder in use; a version of None is the untrained encoder.

    Merits are fidelities on the test split, None where they are not on record. `fidelity` is worst
    first.
    """

    in_use: str | None
    merit: float | None
    merit_untrained: float | None
    latest: str
    latest_merit: float | None
    fidelity: tuple[MeasuredShard, ...]
    gap: DistillationGap

    @property
    def latest_in_use(self) -> bool:
        """The encoder in use is the one that was trained last."""
        return self.in_use == self.latest

    @property
    def chosen_by_hand(self) -> bool:
        """The latest encoder is better than all others, so only a person can have chosen another
        one."""
        if self.latest_in_use or self.merit is None or self.latest_merit is None:
            return False
        return self.latest_merit > self.merit and not (
            self.merit_untrained is not None and self.merit_untrained >= self.latest_merit
        )

    @property
    def beaten_by_untrained(self) -> bool:
        """The encoder in use is worse than the one that it was made of."""
        if self.merit is None or self.merit_untrained is None:
            return False
        return self.merit < self.merit_untrained

    def shards_that_are(self, verdict: str) -> list[str]:
        """Shards with this verdict on the encoder's fidelity."""
        return [each.shard for each in self.fidelity if each.verdict == verdict]


def read_standing(
    champion: Mapping[str, Any],
    latest_version: str,
    fidelity: Mapping[str, Mapping[str, Any] | None],
    gap: DistillationGap,
) -> Standing:
    """The standing, as the pipeline has it on record.

    Args:
        champion: summary of champion_encoder: version, winner, and a merit_ for each contender.
        latest_version: of influence_encoder.
        fidelity: by shard, what was measured; None where nothing was.
        gap: how far the distillation set is behind.
    """
    version = champion["version"]
    trained = "challenger" if champion.get("winner") == "challenger" else "champion"
    found = [_measured_shard(shard, measured) for shard, measured in fidelity.items() if measured]
    return Standing(
        in_use=version,
        merit=champion.get(f"merit_{trained if version else 'untrained'}"),
        merit_untrained=champion.get("merit_untrained"),
        latest=latest_version,
        latest_merit=champion.get("merit_challenger"),
        fidelity=tuple(sorted(found, key=_badness)),
        gap=gap,
    )


def distillation_gap(
    frozen_shards: Mapping[str, str],
    shards: Mapping[str, str],
    frozen_queries: Collection[str],
    queries: Mapping[str, Set[str]],
) -> DistillationGap:
    """How far the distillation set is behind.

    Args:
        frozen_shards: content of the shards' candidates that the set was made from.
        shards: the same of today.
        frozen_queries: ids of the queries that the set was made from.
        queries: ids of today's queries, by behavior.
    """
    known = set(frozen_queries)
    everything = set[str]().union(*queries.values())
    shared = shards.keys() & frozen_shards.keys()
    return DistillationGap(
        shards=len(shards),
        new_shards=len(shards.keys() - frozen_shards.keys()),
        changed_shards=sum(shards[shard] != frozen_shards[shard] for shard in shared),
        queries=len(everything),
        new_queries=len(everything - known),
        unlearnt=tuple(name for name, own in sorted(queries.items()) if not own & known),
    )


def _measured_shard(shard: str, measured: Mapping[str, Any]) -> MeasuredShard:
    figures = ("per_query", "low", "high", "expected", "queries", "candidates")
    return MeasuredShard(
        shard=shard,
        verdict=str(measured.get("verdict", "unknown")),
        **{name: measured.get(name) for name in figures},
    )


def _badness(each: MeasuredShard) -> tuple[int, float, str]:
    place = VERDICTS.index(each.verdict) if each.verdict in VERDICTS else 0
    return place, 1.0 if each.per_query is None else each.per_query, each.shard
