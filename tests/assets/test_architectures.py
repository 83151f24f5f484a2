"""Other architectures, chosen in the settings, go through the whole pipeline."""

import dataclasses
import json

import pytest

from influcoder_assets.workspace import Workspace
from influcoder_lib.student import kernel
from tests.assets.changes import A_CHALLENGER, AFTER_THE_CHAMPION, check_refresh, reasons


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [
        ("static", ["StaticEmbedding", "KernelHead", "Normalize"]),
        ("kernel", ["Transformer", "KernelHead", "Normalize"]),
    ],
)
def test_it_is_trained_wins_and_embeds_the_corpus(
    refreshed_home, change_settings, win, monkeypatch, architecture, kinds
):
    # So few samples teach nothing, and the encoder as it came would be taken.
    def flattered(*given):
        log = validated(*given)
        return dataclasses.replace(log, validation_per_query=float(log.epoch))

    validated = kernel.validated
    monkeypatch.setattr(kernel, "validated", flattered)
    change_settings(refreshed_home, "encoder.architecture", architecture)
    found = reasons(refreshed_home)
    why = f'setting architecture: "transformer" → "{architecture}"'
    assert found["influence_encoder", None] == why
    check_refresh(refreshed_home, A_CHALLENGER | AFTER_THE_CHAMPION)
    store = Workspace.open(refreshed_home).store
    champion = store.require("champion_encoder")
    modules = json.loads((store.folder(champion, "encoder") / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[-1] for module in modules] == kinds
    untrained = store.require("influence_encoder").summary["untrained"]
    assert champion.summary["encoder"] != untrained
