"""What a filtered dataset was made from, read back from the store's manifests.

Every shard's own recipe is followed, not what is in force now: while a refresh is under way, or
after one that stopped half-way, the two differ.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from influcoder_lib.audit.lineage import DECIDED, Trace, lineage, trace, with_content
from influcoder_lib.curation.rules import Rule
from influcoder_lib.errors import StoreError
from influcoder_lib.manifests import Manifest, label
from influcoder_lib.store import Store
from influcoder_lib.tables import scan_table

FILTERED = "filtered_dataset"
FIGURES = ("per_query", "aggregated", "per_query_without_length", "aggregated_without_length")


@dataclass(frozen=True)
class ShardOrigin:
    """One filtered shard and the corpus shard that it was made from.

    `sample_id` is any of its samples and `encoder` the fingerprint of what scored it; both are None
    for a shard without samples.
    """

    filtered: Manifest
    corpus: Manifest
    sample_id: str | None
    encoder: str | None

    @property
    def name(self) -> str:
        """The shard's partition key."""
        return str(self.filtered.shard)

    @property
    def decision_rule(self) -> str:
        """Fingerprint of the calibrated rules."""
        return self.filtered.recipe.inputs["decision_rule"]

    @property
    def counts(self) -> dict[str, int]:
        """rows_in = kept + dropped + quarantined."""
        names = ("rows_in", "kept", "dropped", "quarantined")
        return {name: int(self.filtered.summary[name]) for name in names}


@dataclass(frozen=True)
class Decider:
    """What decided on some shards, and on how many: normally one decided on all.

    `trace` is that of any of their samples. `fidelity` maps `FIGURES` to the encoder's Spearman
    correlations with the teacher on the test split; those that were not measured are absent.
    """

    trace: Trace
    rules: tuple[Rule, ...]
    fidelity: Mapping[str, float]
    shards: int


@dataclass(frozen=True)
class Origin:
    """What all shards were made from.

    `headline` is the outcome of the latest comparison with what costs less, which was about
    `compared_encoder`, a fingerprint. `created` is the time of the newest shard (UTC, ISO 8601).
    """

    shards: tuple[ShardOrigin, ...]
    deciders: tuple[Decider, ...]
    headline: str | None
    compared_encoder: str | None
    created: str

    @property
    def totals(self) -> dict[str, int]:
        """The counts of all shards together."""
        total = Counter[str]()
        for shard in self.shards:
            total.update(shard.counts)
        return dict(total)


def find_origin(store: Store, filtered: Iterable[Manifest]) -> Origin:
    """Follow filtered shards back to their raw files, rules, encoders and target model.

    Args:
        filtered: manifests of filtered_dataset, at least one.

    Raises:
        StoreError: something that a shard was made from is no longer on record.
    """
    shards = tuple(
        ShardOrigin(each, _corpus_of(store, each), *_any_row(store, each)) for each in filtered
    )
    headline, compared = _headline(store)
    return Origin(
        shards=shards,
        deciders=tuple(_deciders(store, shards)),
        headline=headline,
        compared_encoder=compared,
        created=max(shard.filtered.created for shard in shards),
    )


def _corpus_of(store: Store, filtered: Manifest) -> Manifest:
    content = filtered.recipe.inputs[label(("corpus", filtered.shard))]
    if corpus := with_content(store, ("corpus", filtered.shard), content):
        return corpus
    raise StoreError(
        f"The corpus shard that {filtered.shard} was filtered from is no longer on record.",
        where=f"corpus, fingerprint {content}",
        fix="type `influcoder run`, which makes it anew",
    )


def _any_row(store: Store, filtered: Manifest) -> tuple[str, str] | tuple[None, None]:
    """Sample id and encoder of one row."""
    for name in DECIDED.values():
        table = scan_table(store.path(filtered, name)).select("sample_id", "encoder")
        for sample_id, encoder in table.head(1).collect().iter_rows():
            return sample_id, encoder
    return None, None


def _deciders(store: Store, shards: Iterable[ShardOrigin]) -> Iterator[Decider]:
    """One for each choice of rules, queries and encoder; shards without samples need none."""
    alike: dict[tuple[str, str, str], list[ShardOrigin]] = {}
    for shard in shards:
        if shard.encoder is not None:
            queries = shard.filtered.recipe.inputs["behavior_queries"]
            alike.setdefault((shard.decision_rule, queries, shard.encoder), []).append(shard)
    for (*_, encoder), group in sorted(alike.items()):
        found = trace(store, group[0].filtered, str(group[0].sample_id))
        found = replace(found, target_model=_portable(found.target_model))
        yield Decider(found, _rules(found), _fidelity(store, encoder), len(group))


def _portable(name: str | None) -> str | None:
    """A model's name without the folders of this machine."""
    return Path(name).name if name and Path(name).is_absolute() else name


def _rules(found: Trace) -> tuple[Rule, ...]:
    unlabelled = ({k: v for k, v in rule.items() if k != "label"} for rule in found.rules)
    return tuple(map(Rule.from_dict, unlabelled))


def _fidelity(store: Store, encoder: str) -> dict[str, float]:
    """As measured last while this encoder was in use."""
    for manifest in reversed(store.history("champion_encoder")):
        if manifest.summary["encoder"] == encoder:
            return {name: manifest.summary[name] for name in FIGURES if name in manifest.summary}
    return {}


def _headline(store: Store) -> tuple[str | None, str | None]:
    """The outcome of the latest comparison, and the fingerprint of the encoder compared."""
    comparison = store.current("encoder_comparison")
    if comparison is None:
        return None, None
    trained = lineage(store, comparison).of("influence_encoder")
    return comparison.summary["headline"], trained.summary["encoder"]
