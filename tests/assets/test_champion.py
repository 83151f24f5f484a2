"""Challengers, redistillation and rollback: what each makes anew, and who is in use then."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from influcoder_assets import champion
from influcoder_assets.maker import makers
from influcoder_assets.refresh import redistill_job
from influcoder_assets.registry import ALIAS
from influcoder_assets.workspace import Workspace
from influcoder_lib import hardware
from influcoder_lib.errors import StoreError
from influcoder_lib.evaluation.calibration_set import CalibrationSet
from tests.assets import tiny_home
from tests.assets.changes import (
    A_CHALLENGER,
    A_NEW_SET,
    AFTER_THE_CHAMPION,
    check_refresh,
    reasons,
)
from tests.assets.command import run as run_command
from tests.assets.conftest import Done
from tests.assets.tiny_home import SHARDS, everywhere, in_shard


def test_a_challenger_that_loses_is_kept_and_changes_nothing_else(
    refreshed_home, change_settings, lose
):
    before = Workspace.open(refreshed_home)
    change_settings(refreshed_home, "encoder.learning_rate", 2e-3)
    found = reasons(refreshed_home)
    assert found["influence_encoder", None] == "setting learning_rate: 0.001 → 0.002"
    assert found["corpus_embeddings", "a.jsonl"] == "champion_encoder is made anew"
    check_refresh(refreshed_home, A_CHALLENGER)
    after = Workspace.open(refreshed_home)
    assert after.registry.champion() == before.registry.champion()
    summary = after.store.require("champion_encoder").summary
    assert summary["challenger"] == "2"
    assert summary["version"] == before.store.require("champion_encoder").summary["version"]
    trained = after.store.require("influence_encoder").summary
    assert after.registry.holds("2", trained["encoder"])


def test_a_challenger_that_wins_takes_everything_after_it_along(
    refreshed_home, change_settings, win
):
    change_settings(refreshed_home, "encoder.learning_rate", 2e-3)
    check_refresh(refreshed_home, A_CHALLENGER | AFTER_THE_CHAMPION)
    assert Workspace.open(refreshed_home).registry.champion() == "2"


@pytest.mark.parametrize("outcome", ["win", "lose"])
def test_another_adapter_makes_everything_from_the_gradients_on(
    refreshed_home, change_settings, outcome, request
):
    request.getfixturevalue(outcome)
    change_settings(refreshed_home, "target_model.adapter", {"rank": 2, "seed": 7})
    reason = reasons(refreshed_home)["gradient_projections", "a.jsonl"]
    assert reason == "setting adapter.seed: 0 → 7"
    # Of a champion that stays, the calibration set is measured anew; vectors and scores are the
    # same, so that index and thresholds have nothing new to take in.
    same = set() if outcome == "win" else everywhere("embedding_index", "decision_rule")
    made = A_NEW_SET | AFTER_THE_CHAMPION | everywhere("gradient_projections")
    check_refresh(refreshed_home, made - same)


def redistill(home: Path) -> tiny_home.Refreshed:
    return tiny_home.refresh(home, redistill_job)


def test_a_redistillation_of_nothing_new_trains_nothing(refreshed_home):
    again = redistill(refreshed_home)
    assert again.failures == []
    assert again.made == set()


def test_a_redistillation_after_a_mere_renaming_trains_nothing(refreshed_home):
    corpus = refreshed_home / "corpus"
    (corpus / "a.jsonl").rename(corpus / "renamed.jsonl")
    check_refresh(refreshed_home, in_shard("renamed.jsonl"))
    again = redistill(refreshed_home)
    assert again.failures == []
    assert again.made == everywhere("distillation_set")
    assert tiny_home.plan(refreshed_home) == []


def test_a_redistillation_that_loses_changes_no_decision_and_is_not_tried_again(
    refreshed_home, lose
):
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    check_refresh(refreshed_home, in_shard("new.jsonl"))
    before = Workspace.open(refreshed_home).store
    again = redistill(refreshed_home)
    assert again.failures == []
    assert again.made == A_NEW_SET
    after = Workspace.open(refreshed_home).store
    assert after.require("distillation_set").summary["shards"] == len(SHARDS) + 1
    for asset in ("champion_encoder", "calibration_scores", "decision_rule"):
        assert after.require(asset).fingerprint == before.require(asset).fingerprint
    assert tiny_home.plan(refreshed_home) == []
    assert redistill(refreshed_home).made == set()


def test_a_redistillation_that_wins_takes_everything_after_it_along(refreshed_home, win):
    tiny_home.write_rows(refreshed_home / "corpus" / "new.jsonl", tiny_home.rows("new"))
    again = redistill(refreshed_home)
    assert again.failures == []
    own = {(asset, "new.jsonl") for asset in tiny_home.A_SHARD}
    assert again.made == A_NEW_SET | AFTER_THE_CHAMPION | own
    assert tiny_home.plan(refreshed_home) == []


def test_a_rollback_is_followed_and_stays(done: Done, refreshed_home, change_settings, win):
    """Version 1 comes back, with its thresholds, from what is stored; version 2 is not judged
    again, but version 3 is."""
    change_settings(refreshed_home, "encoder.learning_rate", 1.5e-3)
    tiny_home.refresh(refreshed_home)
    first = Workspace.open(refreshed_home).store
    change_settings(refreshed_home, "encoder.learning_rate", 2e-3)
    tiny_home.refresh(refreshed_home)
    workspace = Workspace.open(refreshed_home)
    assert workspace.registry.champion() == "3"
    assert champion.version_before(workspace.store) == "2"
    old = first.history("decision_rule")[-2]

    workspace.registry.promote("2")
    assert reasons(refreshed_home)["champion_encoder", None] == "champion changed"
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    assert again.made == AFTER_THE_CHAMPION | {("champion_encoder", None)}
    store = Workspace.open(refreshed_home).store
    summary = store.require("champion_encoder").summary
    assert (summary["version"], summary["winner"]) == ("2", "alias")
    assert store.require("decision_rule").fingerprint == old.fingerprint
    for shard in SHARDS:
        assert store.require("corpus_embeddings", shard).summary["embedded"] == 0
    check_refresh(refreshed_home, set())

    change_settings(refreshed_home, "encoder.learning_rate", 3e-3)
    check_refresh(refreshed_home, A_CHALLENGER | AFTER_THE_CHAMPION)
    assert Workspace.open(refreshed_home).registry.champion() == "4"


def test_without_the_alias_the_untrained_encoder_is_in_use(refreshed_home, change_settings, win):
    change_settings(refreshed_home, "encoder.learning_rate", 2e-3)
    tiny_home.refresh(refreshed_home)
    Workspace.open(refreshed_home).registry.demote()
    again = tiny_home.refresh(refreshed_home)
    assert again.failures == []
    summary = Workspace.open(refreshed_home).store.require("champion_encoder").summary
    challenger = Workspace.open(refreshed_home).store.require("influence_encoder").summary
    assert summary["version"] is None
    assert summary["encoder"] == challenger["untrained"]
    check_refresh(refreshed_home, set())


def test_after_damage_a_rollback_still_holds(refreshed_home, change_settings, win):
    """The challenger that was rolled back would win again if it were judged again."""
    change_settings(refreshed_home, "encoder.learning_rate", 2e-3)
    tiny_home.refresh(refreshed_home)
    workspace = Workspace.open(refreshed_home)
    assert workspace.registry.champion() == "2"
    workspace.registry.demote()
    tiny_home.refresh(refreshed_home)
    store = Workspace.open(refreshed_home).store
    before = store.require("champion_encoder")
    (store.place(before) / "encoder" / "model.safetensors").unlink()
    assert len(store.verify("champion_encoder")) == 1
    assert tiny_home.refresh(refreshed_home).failures == []
    again = Workspace.open(refreshed_home)
    made = again.store.require("champion_encoder")
    assert (made.number, made.summary["version"]) == (before.number + 1, None)
    assert again.registry.champion() is None


@pytest.mark.parametrize("elsewhere", ["deleted", "of another home"])
def test_another_registry_does_not_take_the_encoder_in_use_away(refreshed_home, elsewhere):
    """Begun anew on purpose, the untrained encoder is in use there."""
    registry = Workspace.open(refreshed_home).registry
    (refreshed_home / "mlflow.db").unlink()
    if elsewhere == "of another home":
        run = registry.log_run("a run", {}, {}, {}, {}, [])
        registry.promote(registry.register(run, "encoder", {"fingerprint": "another"}))
    with pytest.raises(StoreError, match="version 1 of an MLflow registry that is not here") as no:
        tiny_home.plan(refreshed_home)
    assert "rollback --to untrained" in no.value.fix
    assert "MLFLOW_TRACKING_URI" in no.value.fix
    told = run_command("rollback", "--to", "untrained", "--home", refreshed_home)
    assert told.exit_code == 0, told.output
    assert reasons(refreshed_home)["champion_encoder", None] == "champion changed"


def test_another_untrained_encoder_is_measured_by_its_own_fidelity(new_home, change_settings, lose):
    tiny_home.refresh(new_home)
    other = shutil.copytree(new_home / "models" / "encoder", new_home / "models" / "other")
    (weights,) = other.rglob("model.safetensors")
    draw = np.random.default_rng(0)
    tensors = {
        name: (each + draw.normal(size=each.shape) / 2).astype(np.float32)
        for name, each in load_file(weights).items()
        if each.dtype == np.float32
    }
    save_file({**load_file(weights), **tensors}, weights, {"format": "pt"})
    change_settings(new_home, "encoder.path", "models/other")
    assert not tiny_home.refresh(new_home).failures
    store = Workspace.open(new_home).store
    now, before = reversed(store.history("champion_encoder")[-2:])
    assert now.summary["version"] is before.summary["version"] is None
    assert now.summary["per_query"] != before.summary["per_query"]
    own = CalibrationSet.load(store.folder(now, "calibration"))
    assert own.expected.per_query == now.summary["per_query"]


def test_another_name_for_the_same_teacher_renews_what_shards_are_measured_by(
    refreshed_home, change_settings, monkeypatch, lose
):
    def teachers() -> set[str]:
        store = Workspace.open(refreshed_home).store
        measure = store.folder(store.require("champion_encoder"), "calibration")
        shards = [store.require("gradient_projections", shard) for shard in tiny_home.SHARDS]
        return {CalibrationSet.load(measure).teacher, *(s.summary["teacher"] for s in shards)}

    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    before = teachers()
    change_settings(refreshed_home, "target_model.dtype", "auto")
    assert not tiny_home.refresh(refreshed_home).failures
    assert len(teachers()) == 1
    assert teachers() != before


def test_an_alias_taken_away_by_hand_is_followed(refreshed_home):
    registry = Workspace.open(refreshed_home).registry
    registry.client.delete_registered_model_alias(registry.model, ALIAS)
    assert reasons(refreshed_home)["champion_encoder", None] == "champion changed"


def test_another_name_for_the_registered_model_makes_nothing_anew(new_home, change_settings):
    change_settings(new_home, "encoder.registered_model", "mine")
    workspace = Workspace.open(new_home)
    assert workspace.registry.model == "mine"
    shaping = makers()["influence_encoder"].settings(workspace.settings)
    assert "registered_model" not in shaping


def test_an_alias_on_a_version_that_is_not_of_this_home_is_an_error_that_says_so(refreshed_home):
    registry = Workspace.open(refreshed_home).registry
    run = registry.client.search_model_versions("name='influence-encoder'")[0].run_id
    registry.promote(registry.register(run, "encoder", {}))
    (failure,) = tiny_home.refresh(refreshed_home).failures
    assert "points at version 2, which was not trained in this home" in failure
    assert "encoder.registered_model" in failure
