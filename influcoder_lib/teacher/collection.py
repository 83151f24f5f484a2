"""Which samples get a gradient, and getting it: the draw of candidates, features with resume."""

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from influcoder_lib import fingerprint, memory
from influcoder_lib.rows import RowStore
from influcoder_lib.samples import SAMPLE_SCHEMA, Sample

if TYPE_CHECKING:
    from influcoder_lib.teacher.gradients import GradientFeatures


@dataclass(frozen=True)
class Collected:
    """Samples with unit features (n, D) float16, in the order given; the rest with reasons.

    `tokens_per_batch` is how many fitted into memory, None if nothing had to be computed.
    """

    samples: list[Sample]
    features: np.ndarray
    unusable: dict[str, str]
    computed: int
    truncated: int
    tokens_per_batch: int | None


def draw(sample_ids: Sequence[str], count: int, seed: int) -> list[int]:
    """Positions of the `count` samples with the lowest hash of seed and id, lowest first.

    Whether a sample is drawn depends on its own shard only, never on how many shards there are.
    """
    keys = [(fingerprint.draw_key(seed, each), each) for each in sample_ids]
    return sorted(range(len(keys)), key=keys.__getitem__)[:count]


def draw_rows(blocks: Iterable[pl.DataFrame], count: int, seed: int) -> pl.DataFrame:
    """The `draw` from all blocks of sample tables, each content once, lowest hash first; no more
    than a block and the draw are held."""
    drawn = pl.DataFrame(schema=SAMPLE_SCHEMA)
    for block in blocks:
        distinct = pl.concat([drawn, block]).unique("sample_id", keep="first", maintain_order=True)
        drawn = distinct[draw(distinct["sample_id"].to_list(), count, seed)]
    return drawn


def share_out(drawn: Sequence[Sequence[str]], count: int, seed: int) -> list[int]:
    """How many of each shard's drawn samples, lowest hash first, make `count` of all shards' (or
    all there are): each shard's first, then each one's second, and so on."""
    keys = (
        (rank, fingerprint.draw_key(seed, each), each, shard)
        for shard, ids in enumerate(drawn)
        for rank, each in enumerate(ids)
    )
    chosen = heapq.nsmallest(count, keys)
    return np.bincount([shard for *_, shard in chosen], minlength=len(drawn)).tolist()


def collect(
    open_engine: Callable[[], "GradientFeatures"],
    samples: Sequence[Sample],
    rows: RowStore,
    dimensions: int,
    progress: Callable[[str], None],
) -> Collected:
    """Features of the samples, taken from `rows` where they are, else computed and added to it.

    They are added batch by batch, so that a run after a killed one goes on where that one ended.
    `open_engine` is called only if something has to be computed; its sketch has `dimensions`.
    """
    missing = [s for s in samples if s.sample_id not in rows and s.sample_id not in rows.refused]
    tokens_per_batch = None
    if missing:
        engine = open_engine()
        _compute(engine, missing, rows, progress)
        tokens_per_batch = engine.tokens_per_batch
    kept = [sample for sample in samples if sample.sample_id in rows]
    ids = [sample.sample_id for sample in kept]
    features = rows.take(ids) if kept else np.empty((0, dimensions), np.float16)
    unusable = {s.sample_id: rows.refused[s.sample_id] for s in samples if s.sample_id not in rows}
    computed = sum(sample.sample_id in rows for sample in missing)
    truncated = rows.truncated(ids)
    return Collected(kept, features, unusable, computed, truncated, tokens_per_batch)


def _compute(
    engine: "GradientFeatures",
    samples: Sequence[Sample],
    rows: RowStore,
    progress: Callable[[str], None],
) -> None:
    begin, tokens, done = time.monotonic(), 0, 0
    for batch in engine.features(samples):
        if batch.indices:
            ids = [samples[index].sample_id for index in batch.indices]
            rows.append(ids, batch.rows.astype(np.float16), batch.truncated)
        if batch.unusable:
            rows.refuse({samples[i].sample_id: reason for i, reason in batch.unusable.items()})
        memory.release()
        tokens += batch.tokens
        done += len(batch.indices) + len(batch.unusable)
        rate = tokens / max(time.monotonic() - begin, 1e-9)
        left = batch.left / rate if rate else 0.0
        progress(
            f"gradients of {done} of {len(samples)} samples, {rate:,.0f} tokens/s, "
            f"{left:.0f} s left"
        )
