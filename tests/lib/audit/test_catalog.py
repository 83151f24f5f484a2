"""The views show what is stored, and the user's SQL can read them and do nothing else."""

import json
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.views import VIEWS
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.store import Store
from tests.folders import contents
from tests.lib.audit.chain import UNTRAINED, Chain, ids_of, rows_of


def stored(chain: Chain, asset: str, *names: str) -> pl.DataFrame:
    """Files of an asset, read one by one, with the shard that each belongs to."""
    return pl.concat(
        [
            pl.read_parquet(
                chain.store.path(chain.store.require(asset, shard), f"{name}.parquet")
            ).with_columns(shard=pl.lit(shard))
            for shard in chain.store.shards(asset)
            for name in names
        ],
        how="diagonal",
    )


def select(chain: Chain, query: str) -> list[tuple]:
    return Catalog(chain.store).select(query).rows


@pytest.mark.parametrize("name", list(VIEWS))
def test_a_view_has_the_documented_columns_whether_something_is_made_or_not(chain, name):
    for _ in range(2):
        assert Catalog(chain.store).select(f"FROM {name}").columns == VIEWS[name].columns
        chain.run()


def test_before_anything_is_made_every_view_is_empty(chain: Chain):
    assert all(select(chain, f"FROM {name}") == [] for name in VIEWS)


@pytest.mark.parametrize(
    ("view", "asset", "names"),
    [
        ("samples", "corpus", ("samples",)),
        ("quarantine", "corpus", ("quarantine",)),
        ("decisions", "filtered_dataset", ("kept", "dropped")),
    ],
)
def test_a_view_holds_every_stored_row_once(ran: Chain, view, asset, names):
    columns = ["shard", *(name for name in VIEWS[view].columns if not name.startswith("shard"))]
    expected = stored(ran, asset, *names).select(columns)
    found = select(ran, f"SELECT {', '.join(columns)} FROM {view}")
    assert len(found) == len(expected) > 0
    assert set(found) == set(expected.iter_rows())


def test_scores_have_a_row_for_each_sample_and_behavior(ran: Chain):
    ran.queries["vain"] = rows_of("vain query", 3)
    ran.thresholds["vain"] = 0.5
    ran.run()
    wide = stored(ran, "influence_scores", "scores")
    names = ("mean", "max", "mean_percentile", "max_percentile", "best_query")
    expected = {
        (
            *(row["sample_id"], row["shard"], "live", behavior),
            *(row[f"{behavior}_{name}"] for name in names),
            row["encoder"],
        )
        for row in wide.iter_rows(named=True)
        for behavior in ("rude", "vain")
    }
    assert set(select(ran, "FROM scores")) == expected
    assert len(expected) == 2 * 24


def test_a_shard_that_was_not_scored_for_a_behavior_has_no_such_rows(ran: Chain):
    ran.queries["vain"] = rows_of("vain query", 3)
    ran.thresholds["vain"] = -0.9
    later = dict(ran.shards)
    ran.shards = {"a": later["a"]}
    ran.run()
    found = select(ran, "SELECT shard, behavior, count(*) FROM scores GROUP BY ALL ORDER BY ALL")
    assert found == [("a", "rude", 12), ("a", "vain", 12), ("b", "rude", 12)]
    found = select(ran, "SELECT DISTINCT behavior FROM decisions WHERE shard = 'b'")
    assert set(found) == {("rude",), (None,)}
    assert select(
        ran, "SELECT count(*) FROM decisions WHERE decision = 'drop' AND shard = 'a'"
    ) == [(12,)]


def test_queries_are_those_in_force(ran: Chain):
    ran.queries["rude"] = rows_of("rude query", 7)
    ran.run()
    found = select(ran, "SELECT behavior, sample_id, prompt FROM queries")
    rows = ran.queries["rude"]
    assert found == [("rude", i, row[0]) for i, row in zip(ids_of(rows), rows, strict=True)]


def test_rows_of_a_shard_whose_file_is_gone_stay_and_say_so(ran: Chain):
    ran.store.bury("b")
    gone = ran.now
    for view in ("samples", "scores", "decisions", "quarantine"):
        found = select(ran, f"SELECT DISTINCT shard, shard_state FROM {view} ORDER BY shard")
        assert found == [("a", "live"), ("b", "gone")]
    ran.store.revive("a")
    states = select(ran, "SELECT shard, state, gone_since FROM shards ORDER BY shard")
    since = datetime.fromisoformat(gone.removesuffix("Z"))
    assert states == [("a", "live", None), ("b", "gone", since)]


def test_shards_say_what_became_of_their_rows(ran: Chain):
    for shard in ("a", "b"):
        kept, dropped = (
            len(pl.read_parquet(ran.store.path(ran.filtered(shard), f"{name}.parquet")))
            for name in ("kept", "dropped")
        )
        raw = ran.store.require("corpus", shard).recipe.inputs["source:shard"]
        found = select(
            ran,
            "SELECT file, raw_hash, rows_in, valid, quarantined, kept, dropped, run_id FROM shards"
            f" WHERE shard = '{shard}'",
        )
        assert found == [(f"{shard}.jsonl", raw, 13, 12, 1, kept, dropped, "run-1")]


def test_a_shard_that_was_read_but_not_decided_on_yet_has_no_counts_of_decisions(ran: Chain):
    ran._read("c", rows_of("c"))
    found = select(ran, "SELECT valid, kept, dropped, run_id FROM shards WHERE shard = 'c'")
    assert found == [(12, None, None, "run-1")]
    assert select(ran, "SELECT count(*) FROM decisions WHERE shard = 'c'") == [(0,)]


def test_encoders_say_who_won_and_which_is_in_use(ran: Chain):
    ran.challenger = "e2" * 16
    ran.redistill = True
    ran.shards["c"] = rows_of("c")
    ran.run()
    found = select(
        ran, "SELECT version, fingerprint, mlflow_run, merit, winner, in_use FROM encoders"
    )
    assert found == [
        (None, UNTRAINED, None, 0.25, None, False),
        ("1", "e1" * 16, "mlflow-e1", 0.5, "challenger", True),
        ("2", "e2" * 16, "mlflow-e2", 0.5, "champion", False),
    ]


def test_the_untrained_encoder_may_be_in_use(chain: Chain):
    chain.champion = UNTRAINED
    chain.run()
    assert select(chain, "SELECT version, in_use FROM encoders") == [(None, True), ("1", False)]


def test_an_encoder_that_training_left_as_it_was_is_one_of_its_own(chain: Chain):
    chain.challenger = chain.champion = UNTRAINED
    chain.run()
    found = select(chain, "SELECT version, fingerprint, in_use FROM encoders")
    assert found == [(None, UNTRAINED, False), ("1", UNTRAINED, True)]


def test_manifests_and_runs_hold_every_version(ran: Chain):
    ran.thresholds["rude"] = 0.2
    ran.run()
    paths = sorted(ran.store.root.glob("manifests/*/*/*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    newest = {(each["asset"], each["shard"]): each["number"] for each in records}
    assert set(select(ran, "SELECT asset, shard, number, fingerprint, current FROM manifests")) == {
        (
            each["asset"],
            each["shard"],
            each["number"],
            each["fingerprint"],
            each["number"] == newest[each["asset"], each["shard"]],
        )
        for each in records
    }
    ids = [each["run_id"] for each in records]
    expected = [(run, ids.count(run)) for run in ("run-1", "run-2")]
    assert select(ran, "SELECT run_id, artifacts FROM runs ORDER BY run_id") == expected
    assert select(ran, "SELECT run_id FROM runs WHERE first <> last") == []


def test_an_answer_keeps_the_order_that_was_asked_for(ran: Chain):
    found = select(ran, "SELECT sample_id FROM samples ORDER BY sample_id DESC")
    ids = sorted(ids_of(ran.shards["a"] + ran.shards["b"]), reverse=True)
    assert [row[0] for row in found] == ids


def test_records_are_plain_json(ran: Chain):
    table = Catalog(ran.store).select(
        "SELECT 'x' AS text, 1.5::DECIMAL(4, 2) AS number, 'nan'::DOUBLE AS nothing, NULL AS none,"
        " sum(1::HUGEINT) AS large, TIMESTAMP '2026-01-02 03:04:05' AS time, [1, 2] AS list,"
        " {'a': 'inf'::DOUBLE} AS object, true AS yes, '\\xAA'::BLOB AS bytes"
    )
    assert json.loads(json.dumps(table.records(), allow_nan=False)) == [
        {
            "text": "x",
            "number": 1.5,
            "nothing": None,
            "none": None,
            "large": 1,
            "time": "2026-01-02T03:04:05Z",
            "list": [1, 2],
            "object": {"a": None},
            "yes": True,
            "bytes": str(b"\xaa"),
        }
    ]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the store, which no query may read."""
    path = tmp_path / "secret.csv"
    path.write_text("word\nxyzzy\n")
    duckdb.sql("SELECT 'xyzzy' AS word").write_parquet(str(tmp_path / "secret.parquet"))
    return path


WRITES = [
    "CREATE TABLE t AS SELECT 1",
    "INSERT INTO stored.shards (shard) VALUES ('x')",
    "DELETE FROM stored.shards",
    "UPDATE stored.shards SET shard = 'x'",
    "DROP VIEW samples",
    "WITH x AS (INSERT INTO stored.shards (shard) VALUES ('x') RETURNING *) FROM x",
    "WITH x AS (DELETE FROM stored.shards RETURNING *) FROM x",
    "FROM (WITH x AS (DELETE FROM stored.shards RETURNING *) FROM x)",
    "FROM query('DELETE FROM stored.shards')",
    "COPY samples TO '{inside}/new.parquet'",
    "COPY samples TO '{outside}/new.parquet'",
    "WITH x AS (COPY (SELECT 1) TO '{inside}/new.parquet') FROM x",
    "WITH x AS (COPY (SELECT 1) TO '{outside}/new.parquet') FROM x",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''{inside}/new.parquet'') FROM x')",
    "EXPORT DATABASE '{inside}/new'",
    "EXPORT DATABASE '{outside}/new'",
    "ATTACH '{outside}/new.db'",
    "ATTACH '{inside}/new.db'",
    "ATTACH ':memory:' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "RESET lock_configuration",
    "SET temp_directory = '{outside}/new'",
    "SET VARIABLE x = 1",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL enable_logging()",
    "FROM enable_logging(storage = 'file', storage_config = {{'path': '{outside}/new'}})",
    "FROM enable_profiling(save_location = '{outside}/new.json')",
    "CHECKPOINT",
    "USE stored",
    "PREPARE x AS SELECT 1",
    "BEGIN TRANSACTION",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW samples",
    "",
    "   -- nothing",
]
READS = [
    "FROM '{outside}/secret.csv'",
    "FROM '{outside}/secret.parquet'",
    "FROM read_csv('{outside}/secret.csv')",
    "FROM read_text('{outside}/secret.csv')",
    "FROM read_blob('{outside}/secret.csv')",
    "FROM read_json('{outside}/secret.csv')",
    "FROM read_parquet('{outside}/secret.parquet')",
    "FROM parquet_metadata('{outside}/secret.parquet')",
    "FROM sniff_csv('{outside}/secret.csv')",
    "FROM read_duckdb('{outside}/secret.csv')",
    "FROM glob('{outside}/*')",
    "FROM read_text('{inside}/../../secret.csv')",
    "FROM glob('{inside}/../../*')",
    "FROM query('FROM read_text(''{outside}/secret.csv'')')",
    "SELECT (SELECT content FROM read_text('{outside}/secret.csv'))",
    "FROM read_text('secret.csv')",
    "FROM 'secret.csv'",
    "FROM read_text('/etc/hostname')",
    "FROM read_csv('http://127.0.0.1:9/secret.csv')",
    "FROM read_csv('https://example.org/secret.csv')",
    "FROM read_parquet('s3://bucket/secret.parquet')",
    "FROM in_python",
]


@pytest.mark.parametrize("attack", WRITES + READS)
def test_a_query_can_neither_write_nor_reach_beyond_the_views(
    ran: Chain, secret: Path, monkeypatch: pytest.MonkeyPatch, attack: str
):
    in_python = pl.DataFrame({"word": ["xyzzy"]})
    monkeypatch.chdir(secret.parent)
    catalog = Catalog(ran.store)
    before = contents(secret.parent)
    with pytest.raises(DataError) as caught:
        catalog.select(attack.format(inside=ran.store.root / "artifacts", outside=secret.parent))
    assert in_python["word"][0] not in str(caught.value)
    assert contents(secret.parent) == before
    assert sorted(each.name for each in secret.parent.iterdir()) == [
        "data",
        "secret.csv",
        "secret.parquet",
    ]
    assert catalog.select("SELECT shard FROM shards ORDER BY 1").rows == [("a",), ("b",)]
    assert catalog.select("SELECT count(*) FROM samples").rows == [(24,)]


def test_a_symbolic_link_in_the_store_leads_no_query_out_of_it(ran: Chain, secret: Path):
    link = ran.store.root / "artifacts" / "link.csv"
    link.symlink_to(secret.parent / "secret.csv")
    with pytest.raises(DataError, match="Cannot access file"):
        Catalog(ran.store).select(f"FROM read_text('{link}')")


def test_every_attack_above_names_the_views_and_how_to_see_them(ran: Chain):
    with pytest.raises(DataError) as caught:
        Catalog(ran.store).select("SELECT x FROM shard")
    assert "Table with name shard does not exist!" in str(caught.value)
    assert "Did you mean" in caught.value.problem
    assert "query($1)" not in str(caught.value)
    assert all(name in caught.value.allowed for name in VIEWS)
    assert "`influcoder sql`" in caught.value.fix


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM samples;",
        "FROM decisions LIMIT 1 -- a comment",
        "WITH x AS (SELECT 1 AS n) SELECT * FROM x",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) FROM n",
        "SELECT shard FROM shards UNION SELECT 'it''s'",
        "DESCRIBE samples",
        "SUMMARIZE samples",
        "SHOW TABLES",
        "VALUES (1), (2)",
    ],
)
def test_any_single_select_is_answered(ran: Chain, query: str):
    assert Catalog(ran.store).select(query).rows


def test_a_large_query_may_not_spill_to_the_disk(ran: Chain):
    assert select(ran, "SELECT current_setting('temp_directory')") == [("",)]


def test_it_shows_the_store_as_it_was_when_it_was_opened(ran: Chain):
    catalog = Catalog(ran.store)
    ran.shards["a"] = rows_of("a", 20)
    ran.run()
    assert catalog.select("SELECT count(*) FROM samples").rows == [(24,)]
    assert Catalog(ran.store).select("SELECT count(*) FROM samples").rows == [(32,)]


def test_a_lost_file_is_an_error_that_names_it(ran: Chain):
    path = ran.store.path(ran.store.require("corpus", "a"), "samples.parquet")
    path.unlink()
    with pytest.raises(StoreError, match="A stored file cannot be read") as caught:
        Catalog(ran.store).frame("FROM samples")
    assert str(path) in str(caught.value)
    assert "plan --verify" in caught.value.fix


def test_decisions_of_before_are_looked_at_only_when_they_are_asked_for(ran: Chain, monkeypatch):
    past = ran.filtered("a")
    ran.shards["a"] = rows_of("a", 20)
    ran.run()
    brought = []
    monkeypatch.setattr(Store, "bring", lambda store, wanted: brought.extend(wanted))
    catalog = Catalog(ran.store)
    assert (past, "kept.parquet") not in brought
    for _ in range(2):
        catalog.add_past()
    assert (past, "kept.parquet") in brought
    assert len(catalog.frame("FROM stored.past")) == 12
    (ran.store.place(past) / "kept.parquet").unlink()
    lacking = Catalog(ran.store)
    assert lacking.select("SELECT count(*) FROM decisions").rows == [(32,)]
    lacking.add_past()
    assert 0 < len(lacking.frame("FROM stored.past")) < 12


def test_a_damaged_manifest_is_an_error_that_names_it(ran: Chain):
    path = min(ran.store.root.glob("manifests/corpus/a/*.json"))
    path.write_text("{")
    with pytest.raises(StoreError, match="This manifest cannot be read"):
        Catalog(ran.store)
