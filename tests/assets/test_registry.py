"""The MLflow registry of a home: runs, versions, the champion; all of it inside the home."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from mlflow.exceptions import MlflowException

from influcoder_assets.registry import Registry
from influcoder_lib.errors import StoreError
from tests.assets.conftest import Done

MODEL = "influence-encoder"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory):
    """A registry with two registered runs, made with an empty folder as working directory."""
    home = tmp_path_factory.mktemp("registry") / "home"
    home.mkdir()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry = Registry(home, MODEL)
        runs = [log(registry, home.parent / name, name) for name in ("first", "second")]
        for run, name in zip(runs, ("first", "second"), strict=True):
            registry.register(run, "encoder", {"fingerprint": name})
        yield registry, runs, elsewhere


def log(registry: Registry, folder: Path, name: str) -> str:
    """Log a run whose encoder is a folder with a file in a subfolder."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(name.encode() * 1000)
    (folder / "1_Pooling" / "config.json").write_text(f'{{"name": "{name}"}}')
    picture = folder.with_suffix(".png")
    picture.write_bytes(b"a picture")
    return registry.log_run(
        name,
        {"epochs": 8, "distillation_set": "f" * 32},
        {"seed_0/loss": [(1, 0.5), (2, 0.25)]},
        {"encoder": name},
        {"encoder": folder},
        [picture],
    )


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_holds_params_metrics_by_step_tags_and_artifacts(filled):
    registry, (first, _), _ = filled
    run = registry.client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params == {"epochs": "8", "distillation_set": "f" * 32}
    assert run.data.tags["encoder"] == "first"
    history = registry.client.get_metric_history(first, "seed_0/loss")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (2, 0.25)]
    assert {each.path for each in registry.client.list_artifacts(first)} == {"encoder", "first.png"}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_run_that_cannot_be_logged_does_not_run_for_ever(tmp_path, monkeypatch, is_told):
    registry = Registry(tmp_path, MODEL)
    client = Mock()
    client.create_run.return_value.info.run_id = "a run"
    client.log_artifact.side_effect = OSError("no space left on device")
    if not is_told:
        client.set_terminated.side_effect = MlflowException("no answer")
    monkeypatch.setitem(vars(registry), "client", client)
    with pytest.raises(StoreError, match="no space left"):
        registry.log_run("a run", {}, {}, {}, {}, [tmp_path / "a.png"])
    client.set_terminated.assert_called_once_with("a run", "FAILED")


def test_metrics_and_files_can_be_added_to_a_run_whatever_their_names(filled):
    registry, (_, second), _ = filled
    table = registry.home.parent / "table"
    table.mkdir()
    (table / "comparison.json").write_text("{}")
    assert registry.add(second, {"AUPRC, unsafe (max)": 0.75}, table, "comparison")
    run = registry.client.get_run(second)
    assert run.data.metrics["AUPRC_ unsafe _max_"] == 0.75
    (added,) = registry.client.list_artifacts(second, "comparison")
    assert added.path == "comparison/comparison.json"


@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_added_to_a_run_that_was_deleted(filled, tmp_path, is_known):
    registry, (first, _), _ = filled
    run = registry.log_run("third", {}, {}, {}, {}, []) if is_known else first[::-1]
    if is_known:
        registry.client.delete_run(run)
    assert not registry.add(run, {"merit": 0.5}, tmp_path, "comparison")


def test_versions_count_up_and_are_found_by_the_encoder_s_fingerprint(filled):
    registry, (first, second), _ = filled
    found = {name: registry.registered({"fingerprint": name}) for name in ("first", "second")}
    assert found == {"first": ("1", first), "second": ("2", second)}
    assert registry.registered({"fingerprint": "third"}) is None


def test_the_champion_moves_on_promotion_only(filled):
    registry, _, _ = filled
    assert registry.champion() is None
    registry.promote("2")
    assert registry.champion() == "2"
    registry.register(registry.client.get_model_version(MODEL, "1").run_id, "encoder", {})
    assert registry.champion() == "2"
    registry.promote("1")
    assert registry.champion() == "1"


def test_homes_with_names_of_their_own_do_not_see_each_other(filled):
    registry, (first, _), _ = filled
    other = Registry(registry.home, "another-one")
    assert other.champion() is None
    assert other.registered({}) is None
    other.promote(other.register(first, "encoder", {}))
    other.demote()
    assert registry.champion() == "1"


@pytest.mark.parametrize(("version", "name"), [("1", "first"), ("2", "second")])
def test_a_download_is_what_was_logged(filled, tmp_path, version, name):
    registry, _, _ = filled
    copy = registry.download(version, tmp_path)
    assert files(copy) == files(registry.home.parent / name)


def test_everything_is_written_below_the_home(filled):
    registry, _, elsewhere = filled
    assert {path.name for path in registry.home.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert list(elsewhere.iterdir()) == []
    experiment = registry.client.get_experiment_by_name(MODEL)
    assert experiment.artifact_location == (registry.home / "mlartifacts").as_uri()


def test_a_home_that_is_moved_takes_its_files_along(tmp_path):
    old, home = tmp_path / "a home", tmp_path / "new"
    old.mkdir()
    run = log(Registry(old, MODEL), tmp_path / "first", "first")
    Registry(old, MODEL).register(run, "encoder", {})
    old.rename(home)
    registry = Registry(home, MODEL)
    assert files(registry.download("1", tmp_path)) == files(tmp_path / "first")
    log(registry, tmp_path / "second", "second")
    assert not old.exists()
    pictures = {path.name for path in (home / "mlartifacts").rglob("*.png")}
    assert pictures == {"first.png", "second.png"}


def test_a_database_that_is_none_is_an_error_that_names_it(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(StoreError, match="does not answer") as caught:
        Registry(tmp_path, MODEL).champion()
    assert str(tmp_path / "mlflow.db") in caught.value.where


def test_the_tracking_address_of_the_environment_is_respected(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    assert Registry(tmp_path / "home", MODEL).address == f"sqlite:///{tmp_path / 'shared.db'}"


def test_a_trained_encoder_is_registered_with_what_it_was_made_from(done: Done):
    workspace = done.workspace
    made = workspace.store.require("influence_encoder")
    registry = workspace.registry
    version = registry.client.get_model_version(MODEL, made.summary["version"])
    assert version.run_id == made.summary["mlflow_run"]
    assert version.tags["fingerprint"] == made.summary["encoder"]
    inputs = {
        name: workspace.store.require(name).fingerprint
        for name in ("distillation_set", "teacher_rankings")
    }
    assert {name: version.tags[name] for name in inputs} == inputs
    run = registry.client.get_run(version.run_id)
    assert {name: run.data.params[name] for name in inputs} == inputs
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.tags["dagster_run"] == done.first.run.run_id
    assert {"seed_0/loss", "seed_1/validation_per_query"} <= run.data.metrics.keys()
    assert any("AUPRC" in name for name in run.data.metrics)
    artifacts = {each.path for each in registry.client.list_artifacts(version.run_id)}
    assert artifacts == {"encoder", "training.json", "training.png", "comparison"}


def test_the_registered_encoder_is_the_stored_one(done: Done, tmp_path):
    workspace = done.workspace
    made = workspace.store.require("influence_encoder")
    copy = workspace.registry.download(made.summary["version"], tmp_path)
    assert files(copy) == files(workspace.store.folder(made) / "encoder")


def test_a_refresh_writes_nothing_outside_the_home(done: Done):
    assert list(done.elsewhere.iterdir()) == []
    assert [path.name for path in done.home.parent.iterdir()] == ["home"]
    made = {"data", "history", "mlartifacts", "mlflow.db", "schedules", "storage"}
    given = {"corpus", "queries", "models", "dagster.yaml", "influcoder.yaml"}
    assert {path.name for path in done.home.iterdir()} <= made | given


@pytest.mark.parametrize(
    ("address", "is_in_the_home"), [("http://127.0.0.1:1", False), ("postgresql://a:b@c/d", True)]
)
def test_a_server_keeps_the_files_and_a_database_leaves_them_in_the_home(
    tmp_path, monkeypatch, address, is_in_the_home
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = Mock()
    client.get_experiment_by_name.return_value = None
    registry = Registry(tmp_path, MODEL)
    monkeypatch.setitem(vars(registry), "client", client)
    registry._experiment()
    location = client.create_experiment.call_args.kwargs["artifact_location"]
    assert location == ((tmp_path / "mlartifacts").as_uri() if is_in_the_home else None)


def test_the_password_of_a_registry_is_in_no_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me:secret@127.0.0.1:1/mlflow")
    registry = Registry(tmp_path, MODEL)
    assert registry.shown_address == "postgresql+psycopg2://me:***@127.0.0.1:1/mlflow"
    with pytest.raises(StoreError, match="does not answer") as caught, registry._reached():
        raise MlflowException(f"no answer from {registry.address}")
    assert "secret" not in str(caught.value)
