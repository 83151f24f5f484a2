"""What the report warns of, in words: each function looks at one part and returns sentences."""

from collections.abc import Iterator, Mapping, Sequence

from influcoder_lib.errors import listed, shown
from influcoder_lib.report.model import BehaviorReport, FunnelRow
from influcoder_lib.report.standing import Standing
from influcoder_lib.report.wording import encoder, percent, plural, score
from influcoder_lib.samples import SUFFIXES

FEW_QUERIES = 5
"""Below so many queries, a single odd one may decide what is dropped."""


def of_shards(missing: Sequence[str]) -> Iterator[str]:
    """Shards of the corpus that the report has nothing of."""
    if missing:
        yield f"The report lacks {len(missing):,} of the corpus's shards: {listed(missing)}."


def of_quarantine(shards: Sequence[FunnelRow]) -> Iterator[str]:
    """Shards of which not one row is a sample."""
    empty = [str(row.name) for row in shards if row.quarantined and not row.kept + row.dropped]
    if empty:
        yield (
            f"All rows of {plural(len(empty), 'shard')} are in quarantine: {listed(empty)}. See "
            'why: influcoder sql "SELECT file, field, reason, count(*) FROM quarantine GROUP BY '
            'ALL".'
        )


def of_folder(others: Sequence[str]) -> Iterator[str]:
    """Files of the corpus folder that are no shards, as they end otherwise."""
    if others:
        yield (
            f"{plural(len(others), 'file')} of the corpus folder left out, because of the name's "
            f"ending: {listed([shown(name) for name in others])}. A shard ends in "
            f"{', '.join(SUFFIXES)}."
        )


def of_columns(without: Mapping[str, str]) -> Iterator[str]:
    """Shards that lack columns which the settings name for labels and sources, by shard."""
    for columns in dict.fromkeys(without.values()):
        shards = [shard for shard, own in without.items() if own == columns]
        yield (
            f"{plural(len(shards), 'shard')} without the column {columns}, which corpus.columns "
            f"names for labels or sources, so that no sample has any there: {listed(shards)}."
        )


def of_review(unmatched: Sequence[str]) -> Iterator[str]:
    """Entries of the reviewer's list, given by sample id, that are about no sample."""
    if unmatched:
        yield (
            f"The reviewer's list has {plural(len(unmatched), 'entry', 'entries')} without effect, "
            f"as no sample of the corpus has this id: {listed(unmatched)}. A sample whose text "
            "was edited has another id than before."
        )


def of_queries(in_corpus: Sequence[str]) -> Iterator[str]:
    """Queries that are samples of the corpus: each scores itself, at cosine 1."""
    if in_corpus:
        are = "query is a sample" if len(in_corpus) == 1 else "queries are samples"
        yield (
            f"{len(in_corpus):,} {are} of the corpus, so that each finds itself: "
            f"{listed(in_corpus)}. Take them out of the query files, or out of the corpus."
        )


def of_total(total: FunnelRow, most_dropped: float) -> Iterator[str]:
    """Nothing dropped, or more than the share `most_dropped`."""
    valid = total.kept + total.dropped
    dropped = total.dropped_share
    if dropped is None:
        yield "There is no valid sample to report on."
    elif not total.dropped:
        yield "Nothing was dropped: the filtered dataset is the whole corpus."
    elif dropped > most_dropped:
        yield (
            f"{percent(dropped)} of the corpus was dropped, {total.dropped:,} of {valid:,} "
            f"samples: more than the {percent(most_dropped)} that report.most_dropped allows."
        )


def of_behavior(behavior: BehaviorReport) -> Iterator[str]:
    """Scores that cannot tell samples apart, a share far from the asked one, few queries, labels
    that no sample has."""
    name = behavior.name
    if behavior.rows > 1 and behavior.lowest == behavior.highest:
        yield (
            f"All {behavior.rows:,} samples have the same score for behavior {name} "
            f"({score(behavior.lowest)}): its rule cannot tell them apart."
        )
    asked, actual = behavior.asked_share, behavior.actual_share
    if asked is not None and actual is not None and _far(asked, actual):
        verb = "drop" if behavior.rule.kind == "unwanted" else "keep"
        yield (
            f"The rule of behavior {name} was asked to {verb} {percent(asked)} and reaches "
            f"{percent(actual)} of the corpus: the calibration set is unlike the corpus."
        )
    if behavior.queries < FEW_QUERIES:
        yield (
            f"Behavior {name} has only {plural(behavior.queries, 'query', 'queries')}: one odd "
            f"query may decide what is dropped. Give {FEW_QUERIES} or more."
        )
    for labelled in (behavior.positive, behavior.hard_negative):
        if behavior.rows and isinstance(labelled, FunnelRow) and not labelled.rows_in:
            yield f"No sample has the label {labelled.name} that behavior {name} is measured on."


def of_standing(standing: Standing) -> Iterator[str]:
    """A challenger that was not promoted, an encoder that fails on a shard, a behavior that it
    never learnt."""
    if not standing.latest_in_use:
        yield _not_in_use(standing)
    if standing.beaten_by_untrained:
        yield (
            f"The encoder in use follows the model worse ({standing.merit:.3f} on the test split) "
            f"than the untrained one ({standing.merit_untrained:.3f}). Put that in use: influcoder "
            "rollback --to untrained."
        )
    failed, weak = (standing.shards_that_are(verdict) for verdict in ("failed", "weak"))
    if failed:
        yield (
            f"The encoder fails on {len(failed):,} of {len(standing.fidelity):,} shards, so its "
            f"scores there mean little: {listed(failed)}. Retrain: influcoder redistill."
        )
    if weak:
        yield (
            f"The encoder is weak on {len(weak):,} of {len(standing.fidelity):,} shards: "
            f"{listed(weak)}."
        )
    if standing.gap.unlearnt:
        yield (
            f"The encoder has learnt from no query of {listed(standing.gap.unlearnt)}, which "
            "came after its distillation set was frozen. Retrain: influcoder redistill."
        )


def _not_in_use(standing: Standing) -> str:
    in_use, latest = encoder(standing.in_use), f"The latest encoder, version {standing.latest}"
    if standing.merit is None or standing.latest_merit is None:
        return f"{latest}, is not the one in use, which is {in_use}."
    verb = "is not in use by your choice" if standing.chosen_by_hand else "was not promoted"
    return (
        f"{latest}, {verb}: {standing.latest_merit:.3f} on the test split, the one in use "
        f"({in_use}) {standing.merit:.3f}."
    )


def _far(asked: float, actual: float) -> bool:
    """More than a factor of two apart, and more than a percentage point."""
    low, high = sorted((asked, actual))
    return high > 2 * low and high - low > 0.01
