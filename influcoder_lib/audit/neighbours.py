"""Which samples of the corpus are like a vector: every live segment searched together."""

from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.lineage import DECIDED
from influcoder_lib.curation.index import CODES, VECTORS, Hits, Segments
from influcoder_lib.store import Store
from influcoder_lib.tables import load_table, scan_table

_IDS = "ids.parquet"


@dataclass(frozen=True)
class Neighbour:
    """A sample of the corpus and its cosine with what was asked for.

    `decision` is keep or drop, null where nothing is decided yet.
    """

    cosine: float
    sample_id: str
    shard: str
    file: str | None
    row: int | None
    label: str | None
    decision: str | None
    prompt: str | None
    response: str | None


class LiveIndex:
    """The embeddings, by one encoder, of all shards whose files are there.

    Of a vector nothing but its code is in memory; what its sample is, is read for those found.
    `missing` names live shards that this encoder has not embedded yet.

    Raises:
        StoreError: a stored file is missing or damaged.
    """

    def __init__(self, store: Store, catalog: Catalog, encoder: str) -> None:
        self._store = store
        live = catalog.frame("SELECT shard FROM shards WHERE state = 'live' ORDER BY shard")
        found = {shard: store.current("corpus_embeddings", shard) for shard in live["shard"]}
        ready = {
            shard: manifest
            for shard, manifest in found.items()
            if manifest is not None and manifest.summary["encoder"] == encoder
        }
        self.missing = sorted(found.keys() - ready.keys())
        parts = (VECTORS, CODES, _IDS)
        store.bring((manifest, part) for manifest in ready.values() for part in parts)
        self._shards = list(ready)
        self._ids = [store.path(manifest, _IDS) for manifest in ready.values()]
        segments = [
            (store.path(manifest, VECTORS), store.path(manifest, CODES))
            for manifest in ready.values()
        ]
        self._segments = Segments(segments) if segments else None

    def __len__(self) -> int:
        return 0 if self._segments is None else len(self._segments)

    def nearest(self, vector: np.ndarray, top: int) -> list[Neighbour]:
        """The `top` samples with the highest cosine with a unit vector (d,) float32."""
        return [] if self._segments is None else self._named(self._segments.nearest(vector, top))

    def nearest_decided(
        self, vector: np.ndarray, top: int, decision: str, without: str
    ) -> list[Neighbour]:
        """The `top` nearest to a unit vector (d,) float32 of the samples with this decision, but
        for the sample with the id `without`."""
        if self._segments is None:
            return []
        among = [
            self._segments.rows(number, self._decided(number, decision, without))
            for number in range(len(self._shards))
        ]
        return self._named(self._segments.nearest_among(vector, top, np.concatenate(among)))

    def _decided(self, number: int, decision: str, without: str) -> np.ndarray:
        """Rows of a shard's segment, int64, of the samples with this decision but one."""
        decided = self._decisions(self._shards[number])
        wanted = decided.filter(
            (pl.col("decision") == decision) & (pl.col("sample_id") != without)
        ).collect()
        chosen = pl.col("sample_id").is_in(wanted["sample_id"].implode())
        own = load_table(self._ids[number], columns=["sample_id"])
        return own.select(chosen.arg_true()).to_series().cast(pl.Int64).to_numpy()

    def _decisions(self, shard: str) -> pl.LazyFrame:
        """Decision by sample_id of a shard; none where nothing is decided yet."""
        manifest = self._store.current("filtered_dataset", shard)
        if manifest is None:
            return pl.LazyFrame(schema={"sample_id": pl.String, "decision": pl.String})
        folder = self._store.place(manifest)
        return pl.concat(
            scan_table(folder / name).select("sample_id", decision=pl.lit(decision))
            for decision, name in DECIDED.items()
        )

    def _named(self, found: Hits) -> list[Neighbour]:
        if self._segments is None or not len(found.rows):
            return []
        numbers, rows = self._segments.places(found.rows)
        hits = []
        for number in np.unique(numbers):
            mine = numbers == number
            ids = load_table(self._ids[number], columns=["sample_id"])[rows[mine]]
            own = ids.with_columns(cosine=found.cosines[mine], shard=pl.lit(self._shards[number]))
            hits.append(self._told(self._shards[number], own))
        together = pl.concat(pl.collect_all(hits)).sort(
            "cosine", "sample_id", "shard", descending=[True, False, False]
        )
        names = [field.name for field in fields(Neighbour)]
        return [Neighbour(*row) for row in together.select(names).iter_rows()]

    def _told(self, shard: str, hits: pl.DataFrame) -> pl.LazyFrame:
        """The hits of one shard with what was decided on them, and what they say."""
        folder = self._store.place(self._store.require("corpus", shard))
        samples = scan_table(folder / "samples.parquet").drop("source")
        chosen = pl.col("sample_id").is_in(hits["sample_id"].implode())
        told = hits.lazy()
        for table in (samples, self._decisions(shard)):
            told = told.join(table.filter(chosen), on="sample_id", how="left")
        return told
