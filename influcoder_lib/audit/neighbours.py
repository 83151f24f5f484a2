"""Which samples of the corpus are like a vector: every live segment searched together."""

from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.curation.index import CODES, VECTORS, Hits, Segments
from influcoder_lib.store import Store
from influcoder_lib.tables import load_table, scan_table

_DECISIONS = """
SELECT shard, sample_id, file, row, label, decision FROM decisions WHERE shard_state = 'live'
"""


@dataclass(frozen=True)
class Neighbour:
    """A sample of the corpus and its cosine with what was asked for.

    `decision` is keep or drop. It, file, row and label are null where nothing is decided yet.
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
        ids: list[pl.DataFrame] = []
        segments = []
        parts = (VECTORS, CODES, "ids.parquet")
        store.bring((manifest, part) for manifest in ready.values() for part in parts)
        for shard, manifest in ready.items():
            segments.append((store.path(manifest, VECTORS), store.path(manifest, CODES)))
            own = load_table(store.path(manifest, "ids.parquet"), columns=["sample_id"])
            ids.append(own.with_columns(shard=pl.lit(shard)))
        self._segments = Segments(segments) if segments else None
        self._rows = _with_decisions(ids, catalog)

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, vector: np.ndarray, top: int) -> list[Neighbour]:
        """The `top` samples with the highest cosine with a unit vector (d,) float32."""
        return [] if self._segments is None else self._named(self._segments.nearest(vector, top))

    def nearest_decided(
        self, vector: np.ndarray, top: int, decision: str, without: str
    ) -> list[Neighbour]:
        """The same among samples with this decision, and without the sample of that id."""
        wanted = (pl.col("decision") == decision) & (pl.col("sample_id") != without)
        among = self._rows.select(wanted.fill_null(False).arg_true()).to_series().to_numpy()
        if self._segments is None:
            return []
        return self._named(self._segments.nearest_among(vector, top, among))

    def _named(self, found: Hits) -> list[Neighbour]:
        if not len(found.rows):
            return []
        hits = self._rows[found.rows].with_columns(cosine=found.cosines)
        hits = hits.join(self._texts(hits), on=("shard", "sample_id"), how="left")
        hits = hits.sort("cosine", "sample_id", "shard", descending=[True, False, False])
        names = [field.name for field in fields(Neighbour)]
        return [Neighbour(*row) for row in hits.select(names).iter_rows()]

    def _texts(self, hits: pl.DataFrame) -> pl.DataFrame:
        """Prompt and response of the hits, from the samples of their shards."""
        parts = []
        for (shard,), own in hits.group_by("shard"):
            folder = self._store.place(self._store.require("corpus", str(shard)))
            samples = scan_table(folder / "samples.parquet")
            wanted = samples.filter(pl.col("sample_id").is_in(own["sample_id"].implode()))
            texts = wanted.select("sample_id", "prompt", "response").collect()
            parts.append(texts.with_columns(shard=pl.lit(shard)))
        return pl.concat(parts)


def _with_decisions(ids: list[pl.DataFrame], catalog: Catalog) -> pl.DataFrame:
    """What is known of every vector's sample, in the order of the vectors."""
    schema = {"sample_id": pl.String, "shard": pl.String}
    rows = pl.concat([pl.DataFrame(schema=schema), *ids])
    decided = catalog.frame(_DECISIONS)
    return rows.join(decided, on=("shard", "sample_id"), how="left", maintain_order="left")
