"""The documented views: what each holds, and how it is made from manifests and stored parquet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from duckdb import ColumnExpression, ConstantExpression

from influcoder_lib.curation.decisions import DECISION_SCHEMA
from influcoder_lib.manifests import Key, Manifest, source_input
from influcoder_lib.samples import QUARANTINE_SCHEMA, SAMPLE_SCHEMA
from influcoder_lib.store import Store


@dataclass(frozen=True)
class View:
    """A view that users may rely on: what it holds, and its columns in their order."""

    about: str
    columns: tuple[str, ...]


def _view(about: str, columns: str) -> View:
    return View(about, tuple(columns.split()))


VIEWS: Mapping[str, View] = {
    "decisions": _view(
        "Samples kept and dropped (decision: keep, drop), each with the reason on record.",
        "sample_id shard shard_state file row label source decision reason behavior score"
        " percentile best_query rule threshold encoder",
    ),
    "samples": _view(
        "Valid samples with their texts.",
        "sample_id shard shard_state file row prompt response label source",
    ),
    "scores": _view(
        "A row for each sample and behavior; best_query is the sample_id of a query.",
        "sample_id shard shard_state behavior mean max mean_percentile max_percentile best_query"
        " encoder",
    ),
    "queries": _view(
        "The behaviors' queries with their texts.", "sample_id behavior prompt response file row"
    ),
    "quarantine": _view(
        "Rows of raw files that are no samples, and why; they have no sample_id.",
        "shard shard_state file row field reason excerpt",
    ),
    "shards": _view(
        "Shards; the state is live, or gone once the file was missed.",
        "shard file state gone_since raw_hash rows_in valid quarantined kept dropped updated"
        " run_id",
    ),
    "encoders": _view(
        "Encoders, the untrained one without a version. merit is the fidelity on the test split"
        " when the encoder was judged, beside that of its rivals; winner is who won.",
        "version mlflow_run fingerprint merit merit_untrained merit_champion winner created in_use",
    ),
    "runs": _view(
        "Dagster runs that made something: how much, and when the first and the last of it.",
        "run_id first last artifacts",
    ),
    "manifests": _view(
        "Every version of every artifact; the one in force is current.",
        "asset shard number fingerprint rows bytes created run_id code_version current",
    ),
}

_FILES = {"filename": pl.String, "shard": pl.String, "version": pl.Int64}
_MANIFESTS = {
    **dict.fromkeys(("asset", "shard"), pl.String),
    **dict.fromkeys(("number", "rows", "bytes"), pl.Int64),
    **dict.fromkeys(("fingerprint", "created", "run_id", "code_version"), pl.String),
    "current": pl.Boolean,
}
_SHARDS = {
    **dict.fromkeys(("shard", "file", "state", "gone_since", "raw_hash"), pl.String),
    **dict.fromkeys(("rows_in", "valid", "quarantined", "kept", "dropped"), pl.Int64),
    **dict.fromkeys(("updated", "run_id"), pl.String),
}
_ENCODERS = {
    **dict.fromkeys(("version", "mlflow_run", "fingerprint"), pl.String),
    **dict.fromkeys(("merit", "merit_untrained", "merit_champion"), pl.Float64),
    **dict.fromkeys(("winner", "created"), pl.String),
    "in_use": pl.Boolean,
}
_DECISIONS = {
    **{name: SAMPLE_SCHEMA[name] for name in ("sample_id", "file", "row", "label", "source")},
    **DECISION_SCHEMA,
    "encoder": pl.String,
}
_SCORES = {
    **dict.fromkeys(("sample_id", "behavior"), pl.String),
    **dict.fromkeys(("mean", "max", "mean_percentile", "max_percentile"), pl.Float32),
    **dict.fromkeys(("best_query", "encoder"), pl.String),
}

_PARQUET: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, Any]]] = {
    "samples": ("corpus", ("samples.parquet",), SAMPLE_SCHEMA),
    "quarantine": ("corpus", ("quarantine.parquet",), QUARANTINE_SCHEMA),
    "decisions": ("filtered_dataset", ("kept.parquet", "dropped.parquet"), _DECISIONS),
    "queries": (
        "behavior_queries",
        ("queries.parquet",),
        {**SAMPLE_SCHEMA, "behavior": pl.String},
    ),
}

_WITH_SHARD = (
    "stored.{} JOIN stored.files USING (filename)"
    " JOIN (SELECT shard, state AS shard_state FROM stored.shards) USING (shard)"
)
_SOURCES = {
    **{name: _WITH_SHARD.format(name) for name in ("decisions", "samples", "scores", "quarantine")},
    "queries": "stored.queries",
    "shards": "stored.shards",
    "encoders": "stored.encoders",
    "manifests": "stored.manifests",
    "runs": "(SELECT run_id, min(created)::TIMESTAMP AS first, max(created)::TIMESTAMP AS last,"
    " count(*) AS artifacts FROM stored.manifests GROUP BY run_id)",
}
_TIMES = {name: f"{name}::TIMESTAMP AS {name}" for name in ("created", "updated", "gone_since")}

Connection = duckdb.DuckDBPyConnection
Row = dict[str, Any]


def make_views(connection: Connection, store: Store) -> None:
    """Make every view of VIEWS, over the version in force of each artifact.

    What manifests say becomes small tables in the schema `stored`; the rows of samples, scores and
    decisions stay in their parquet files, whose bytes are not verified.

    Raises:
        StoreError: a manifest cannot be read.
        duckdb.Error: a stored parquet file is missing or damaged.
    """
    histories = store.histories()
    current = {key: history[-1] for key, history in histories.items()}
    connection.execute("CREATE SCHEMA stored")
    connection.execute("USE stored")
    _table(connection, "manifests", _manifest_rows(histories), _MANIFESTS)
    _table(connection, "shards", _shard_rows(current, store.tombstones()), _SHARDS)
    _table(connection, "encoders", _encoder_rows(histories), _ENCODERS)
    files: list[Row] = []
    for name, (asset, parts, schema) in _PARQUET.items():
        found = _files(store, current, asset, parts)
        _parquet(connection, name, found, schema)
        files += found
    scored = _files(store, current, "influence_scores", ("scores.parquet",))
    _scores(connection, scored)
    _table(connection, "files", files + scored, _FILES)
    connection.execute("USE main")
    for name, source in _SOURCES.items():
        columns = ", ".join(_TIMES.get(column, column) for column in VIEWS[name].columns)
        connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source}")


def _manifest_rows(histories: Mapping[Key, list[Manifest]]) -> list[Row]:
    plain = ("asset", "shard", "number", "fingerprint", "rows", "bytes", "created", "run_id")
    return [
        {
            **{name: getattr(manifest, name) for name in plain},
            "code_version": manifest.recipe.code_version,
            "current": manifest is history[-1],
        }
        for history in histories.values()
        for manifest in history
    ]


def _shard_rows(current: Mapping[Key, Manifest], gone: Mapping[str, str]) -> list[Row]:
    rows = []
    for (asset, shard), read in current.items():
        if asset != "corpus" or shard is None:
            continue
        decided = current.get(("filtered_dataset", shard))
        last = decided or read
        counts = {name: read.summary.get(name) for name in ("rows_in", "valid", "quarantined")}
        if decided:
            counts |= {name: decided.summary.get(name) for name in ("kept", "dropped")}
        rows.append(
            {
                "shard": shard,
                "file": read.summary.get("file"),
                "state": "gone" if shard in gone else "live",
                "gone_since": gone.get(shard),
                "raw_hash": read.recipe.inputs.get(source_input("shard")),
                **counts,
                "updated": last.created,
                "run_id": last.run_id,
            }
        )
    return rows


def _encoder_rows(histories: Mapping[Key, list[Manifest]]) -> list[Row]:
    """Every encoder once: the untrained ones, and each trained one with how it was judged first,
    even if training has left it as it was."""
    judged: dict[str, Manifest] = {}
    in_use: tuple[str | None, str | None] | None = None
    for manifest in histories.get(("champion_encoder", None), []):
        judged.setdefault(manifest.recipe.inputs.get("influence_encoder", ""), manifest)
        in_use = manifest.summary.get("version"), manifest.summary.get("encoder")
    rows: dict[tuple[str | None, str | None], Row] = {}
    for trained in histories.get(("influence_encoder", None), []):
        untrained, own = trained.summary.get("untrained"), trained.summary["encoder"]
        version = trained.summary.get("version")
        verdict = judged.get(trained.fingerprint)
        said = verdict.summary if verdict else {}
        rows.setdefault(
            (None, untrained),
            {"fingerprint": untrained, "merit": said.get("merit_untrained")},
        )
        rows.setdefault(
            (version, own),
            {
                "version": version,
                "mlflow_run": trained.summary.get("mlflow_run"),
                "fingerprint": own,
                "merit": said.get("merit_challenger"),
                "merit_untrained": said.get("merit_untrained"),
                "merit_champion": said.get("merit_champion"),
                "winner": said.get("winner"),
                "created": trained.created,
            },
        )
    return [{**row, "in_use": encoder == in_use} for encoder, row in rows.items()]


def _files(
    store: Store, current: Mapping[Key, Manifest], asset: str, parts: Sequence[str]
) -> list[Row]:
    """Some files of the version in force of an asset, for every shard."""
    return _files_of(store, [each for (name, _), each in current.items() if name == asset], parts)


def _files_of(store: Store, manifests: Sequence[Manifest], parts: Sequence[str]) -> list[Row]:
    store.bring((manifest, part) for manifest in manifests for part in parts)
    return [
        {
            "filename": str(store.place(manifest) / part),
            "shard": manifest.shard,
            "version": manifest.number,
        }
        for manifest in manifests
        for part in parts
    ]


def _table(connection: Connection, name: str, rows: list[Row], schema: Mapping[str, Any]) -> None:
    connection.register("rows_of_table", pl.DataFrame(rows, schema=dict(schema)))
    connection.execute(f"CREATE TABLE {name} AS FROM rows_of_table")
    connection.unregister("rows_of_table")


def _parquet(
    connection: Connection, name: str, files: list[Row], schema: Mapping[str, Any]
) -> None:
    """A view over parquet files with a column `filename`, empty where there are no files."""
    if not files:
        _table(connection, name, [], {**schema, "filename": pl.String})
        return
    paths = [escape(each["filename"]) for each in files]
    columns = [ColumnExpression(column) for column in (*schema, "filename")]
    connection.read_parquet(paths, filename=True).select(*columns).create_view(name)


def _scores(connection: Connection, files: list[Row]) -> None:
    """Scores in long form; a shard that was scored without a behavior has no rows for it."""
    if not files:
        _table(connection, "scores", [], {**_SCORES, "filename": pl.String})
        return
    paths = [escape(each["filename"]) for each in files]
    wide = connection.read_parquet(paths, filename=True, union_by_name=True)
    parts = [
        wide.filter(ColumnExpression(f"{behavior}_max").isnotnull()).select(
            *(ColumnExpression(name) for name in ("sample_id", "filename", "encoder")),
            ConstantExpression(behavior).alias("behavior"),
            *(
                ColumnExpression(f"{behavior}_{name}").alias(name)
                for name in ("mean", "max", "mean_percentile", "max_percentile", "best_query")
            ),
        )
        for behavior in _behaviors(wide.columns)
    ]
    long = parts[0]
    for part in parts[1:]:
        long = long.union(part)
    long.create_view("scores")


def make_past_views(connection: Connection, store: Store) -> None:
    """Make `stored.past` and `stored.past_files`, decisions of older versions that are still there;
    each file once, with the newest version that has it. A file that is in force now is none of
    them.

    Raises:
        StoreError: a manifest cannot be read, or a file that the location has is damaged.
        duckdb.Error: a stored parquet file is damaged.
    """
    asset, parts, schema = _PARQUET["decisions"]
    found = {
        (manifest.shard, manifest.fingerprint): manifest
        for (name, _), history in store.histories().items()
        if name == asset
        for manifest in history[:-1]
        if manifest.fingerprint != history[-1].fingerprint
    }
    files = _files_of(store, list(found.values()), parts)
    files = [each for each in files if Path(each["filename"]).is_file()]
    connection.execute("USE stored")
    _parquet(connection, "past", files, schema)
    _table(connection, "past_files", files, _FILES)
    connection.execute("USE main")


def _behaviors(columns: Iterable[str]) -> list[str]:
    last = "_best_query"
    return [name.removesuffix(last) for name in columns if name.endswith(last)]
