"""Writing the filtered dataset to a folder: whole or not at all, equal inputs to equal bytes."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from influcoder_lib import fingerprint
from influcoder_lib.atomic import part_of
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.export.card import Description, render_card
from influcoder_lib.export.licences import hub_licence
from influcoder_lib.export.origin import FILTERED, Decider, Origin, ShardOrigin, find_origin
from influcoder_lib.export.tables import Format, read_part, write_part
from influcoder_lib.export.tally import Tally
from influcoder_lib.id_table import IdTable, keys_of
from influcoder_lib.manifests import source_input
from influcoder_lib.store import Store

SCHEMA = 1
_STORED = {"data": "kept.parquet", "dropped": "dropped.parquet"}
_OF_ONE_SAMPLE = ("sample_id", "shard", "file", "row", "raw_hash")


@dataclass(frozen=True)
class Exported:
    """What was written: rows, shards, and the shards that are missing as they were not filtered."""

    kept: int
    dropped: int
    shards: int
    not_filtered: Sequence[str]


def export_dataset(
    store: Store,
    shards: Sequence[str],
    folder: Path,
    form: Format,
    *,
    out_of_date: int,
    failed: Iterable[str],
    licences: Mapping[str, str],
) -> Exported:
    """Write the filtered shards, the dropped rows, manifest.json and README.md into a new folder.

    One shard is in memory at a time. On any error, nothing is left behind.

    Args:
        shards: the corpus's shards now, by partition key; others are not exported.
        folder: absolute path; there is nothing there, or an empty folder.
        out_of_date: how many steps of the plan are still to be made, for the card.
        failed: what could not be made and is in no plan, as `asset/shard`, for the card.
        licences: licence by source, for the card.

    Raises:
        DataError: nothing was filtered yet, or no sample was kept.
        StoreError: there is something at `folder`, or it cannot be written; or a stored file is
            damaged, or a shard was made from something that is no longer on record.
    """
    _check_free(folder)
    origin, not_filtered = _origin(store, sorted(shards))
    with _written_whole(folder) as staging:
        files, tally, distinct = _write_shards(store, origin, staging, form)
        described = Description(
            origin=origin,
            form=form,
            repeated=origin.totals["kept"] - distinct,
            by_source=tally.groups("source"),
            by_label=tally.groups("label"),
            drop_reasons=tally.drop_reasons(),
            licences=licences,
            hub_licence=hub_licence(tally.sources(), licences),
            out_of_date=out_of_date,
            not_filtered=not_filtered,
            failed=sorted(failed),
        )
        _write_text(staging / "manifest.json", json.dumps(_manifest(described, files), indent=1))
        _write_text(staging / "README.md", render_card(described))
    totals = origin.totals
    return Exported(totals["kept"], totals["dropped"], len(origin.shards), not_filtered)


def _origin(store: Store, shards: Sequence[str]) -> tuple[Origin, list[str]]:
    """Where the filtered ones of the shards come from, and the names of the others."""
    current = {shard: store.current(FILTERED, shard) for shard in shards}
    filtered = [manifest for manifest in current.values() if manifest is not None]
    if not filtered:
        raise DataError(
            "Nothing has been filtered yet, so there is nothing to export.",
            where=str(store.root),
            fix="type `influcoder run` first",
        )
    origin = find_origin(store, filtered)
    if not origin.totals["kept"]:
        raise DataError(
            "No sample was kept, so there is no dataset to export.",
            where=str(store.root),
            fix="see the report for what was dropped, and choose a milder rule",
        )
    return origin, [shard for shard, manifest in current.items() if manifest is None]


def _write_shards(
    store: Store, origin: Origin, staging: Path, form: Format
) -> tuple[list[dict[str, Any]], Tally, int]:
    """Write both tables of every shard; the manifest's entries, counts of what was written, and how
    many of the kept samples are distinct."""
    files, tally, kept = [], Tally(), IdTable()
    for part, stored in _STORED.items():
        (staging / part).mkdir()
        for shard in origin.shards:
            rows = read_part(store.path(shard.filtered, stored), part)
            tally.add(rows, part)
            if part == "data":
                kept.setdefault(keys_of(rows["sample_id"].to_list()), np.zeros(len(rows), np.int64))
            path = staging / part / f"{shard.name}.{form}"
            if write_part(rows, path, form):
                files.append({"path": f"{part}/{path.name}", "rows": len(rows), **_identity(path)})
    return files, tally, len(kept)


def _identity(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": fingerprint.sha256_of_file(path)}


def _manifest(described: Description, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    origin = described.origin
    return {
        "schema": SCHEMA,
        "created": origin.created,
        "influcoder": version("influcoder"),
        "format": described.form,
        "counts": {**origin.totals, "repeated": described.repeated},
        "steps_out_of_date": described.out_of_date,
        "shards_not_filtered": list(described.not_filtered),
        "failed": list(described.failed),
        "licences": dict(described.licences),
        "decided_by": [_decider_entry(each) for each in origin.deciders],
        "shards": [_shard_entry(each) for each in origin.shards],
        "files": list(files),
    }


def _decider_entry(decider: Decider) -> dict[str, Any]:
    """Encoder, target model, rules, queries, code versions and runs, without the sample traced."""
    found = {
        name: value for name, value in asdict(decider.trace).items() if name not in _OF_ONE_SAMPLE
    }
    return {"shards": decider.shards, **found, "fidelity": dict(decider.fidelity)}


def _shard_entry(shard: ShardOrigin) -> dict[str, Any]:
    return {
        "shard": shard.name,
        "raw_file": shard.corpus.summary["file"],
        "raw_fingerprint": shard.corpus.recipe.inputs[source_input("shard")],
        **shard.counts,
        "filtered_dataset": shard.filtered.fingerprint,
        "decision_rule": shard.decision_rule,
        "encoder": shard.encoder,
        "dagster_run": shard.filtered.run_id,
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _check_free(folder: Path) -> None:
    if not folder.parent.is_dir():
        problem, fix = "The folder to export into has no parent.", f"make {folder.parent} first"
    elif folder.is_dir() and not any(folder.iterdir()):
        return
    elif os.path.lexists(folder):
        problem, fix = "There is something at the place to export to.", "choose another folder"
    else:
        return
    raise StoreError(problem, where=str(folder), allowed="a new or an empty folder", fix=fix)


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside the final one, which takes its place at the end."""
    staging = part_of(folder)
    try:
        staging.mkdir()
        yield staging
        staging.replace(folder)
    except OSError as error:
        raise StoreError(
            f"The export cannot be written: {error.strerror or error}.",
            where=str(folder),
            fix="choose a folder that you may write to, on a disk with room",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
