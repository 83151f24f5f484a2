"""The adapter that is trained here: once, and then it is like one that the user has trained."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from influcoder_assets.refresh import redistill_job
from influcoder_assets.workspace import Workspace
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW, reasons
from tests.assets.conftest import Done
from tests.assets.tiny_home import append_row, everywhere

WARMUP = {"source": "warmup", "rank": 2, "samples": 9, "epochs": 1, "learning_rate": 0.02}


def adapter(home: Path) -> Path:
    store = Workspace.open(home).store
    return store.folder(store.require("target_adapter"))


def features(home: Path, shard: str) -> np.ndarray:
    workspace = Workspace.open(home)
    tiny_home.make(workspace, "target_adapter")
    made, _ = tiny_home.make(workspace, "gradient_projections", shard)
    return np.load(workspace.store.path(made, "features.npy"))


def test_a_fresh_adapter_is_a_note_of_its_source(done: Done):
    made = done.workspace.store.require("target_adapter")
    assert list(made.files) == ["source.json"]
    assert made.summary == {"source": "fresh"}


def test_a_warmed_up_adapter_gives_the_gradients_of_one_that_the_user_trained(
    refreshed_home, change_settings
):
    fresh = features(refreshed_home, "a.jsonl")
    change_settings(refreshed_home, "target_model.adapter", WARMUP)
    warmed = features(refreshed_home, "a.jsonl")
    weights = load_file(adapter(refreshed_home) / "adapter_model.safetensors")
    assert all(np.abs(weights[name]).max() > 0 for name in weights if "lora_B" in name)
    shutil.copytree(adapter(refreshed_home), refreshed_home / "mine")
    change_settings(refreshed_home, "target_model.adapter", {"source": "peft", "path": "mine"})
    np.testing.assert_array_equal(features(refreshed_home, "a.jsonl"), warmed)
    change_settings(refreshed_home, "target_model.adapter", WARMUP | {"epochs": 3})
    for other in (fresh, features(refreshed_home, "a.jsonl")):
        assert np.abs(other.astype(np.float32) - warmed).max() > 0.01


def test_a_warm_up_happens_once_and_again_only_if_its_settings_change(
    refreshed_home, change_settings
):
    change_settings(refreshed_home, "target_model.adapter", WARMUP)
    found = reasons(refreshed_home)
    assert found["target_adapter", None].startswith("setting")
    assert {each for each in found if each[0] == "gradient_projections"} == everywhere(
        "gradient_projections"
    )
    made, _ = tiny_home.make(Workspace.open(refreshed_home), "target_adapter")
    assert made.summary == {"source": "warmup", "samples": 9, "steps": 2}
    append_row(refreshed_home / "corpus" / "a.jsonl", NEW_ROW)
    tiny_home.make(Workspace.open(refreshed_home), "corpus", "a.jsonl")
    assert ("target_adapter", None) not in reasons(refreshed_home)
    change_settings(refreshed_home, "target_model.adapter", WARMUP | {"epochs": 2})
    assert reasons(refreshed_home)["target_adapter", None] == "setting adapter.epochs: 1 → 2"


def test_a_redistillation_leaves_the_adapter_alone():
    steps = {node.name for node in redistill_job.graph.nodes}
    assert {"refresh_target_adapter", "redraw_distillation_set"} <= steps
    assert "redraw_target_adapter" not in steps


def test_a_new_home_warms_up_to_the_same_adapter_as_any_other_of_that_corpus(
    refreshed_home, pristine, change_settings, tmp_path
):
    new_home = tiny_home.copy_home(pristine, tmp_path / "new")
    made = []
    for shard in tiny_home.SHARDS:
        tiny_home.make(Workspace.open(new_home), "corpus", shard)
    for home in (refreshed_home, new_home):
        change_settings(home, "target_model.adapter", WARMUP)
        made.append(tiny_home.make(Workspace.open(home), "target_adapter")[0].fingerprint)
    assert made[0] == made[1]
