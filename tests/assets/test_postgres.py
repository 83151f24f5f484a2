"""The records of Dagster and MLflow in PostgreSQL instead of the home: configuration alone."""

import dagster as dg
import yaml

from influcoder_assets.commands.driver import refresh_home
from influcoder_assets.workspace import Workspace
from tests.assets import postgres, tiny_home


def test_a_home_whose_records_are_in_postgresql_works_like_any_other(new_home, monkeypatch):
    with postgres.server("dagster", "mlflow") as address:
        settings = yaml.safe_load((new_home / "dagster.yaml").read_text())
        url = {"postgres_url": {"env": "DAGSTER_POSTGRES"}}
        (new_home / "dagster.yaml").write_text(
            yaml.safe_dump({**settings, "storage": {"postgres": url}})
        )
        monkeypatch.setenv("DAGSTER_HOME", str(new_home))
        monkeypatch.setenv("DAGSTER_POSTGRES", f"{address}/dagster")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}/mlflow")
        assert refresh_home(new_home).failures == []
        assert tiny_home.plan(new_home) == []
        assert postgres.count(f"{address}/dagster", "runs") == 1
        assert postgres.count(f"{address}/dagster", "asset_keys") > 10
        assert postgres.count(f"{address}/mlflow", "model_versions") >= 1
        assert Workspace.open(new_home).registry.champion() in (None, "1")
        with dg.DagsterInstance.get() as instance:
            assert instance.get_runs(limit=1)[0].status == dg.DagsterRunStatus.SUCCESS
    assert not (new_home / "mlflow.db").exists()
    assert not list(new_home.rglob("*.db"))
