"""A static encoder, chosen in the settings, goes through the whole pipeline."""

import json

from influcoder_assets.workspace import Workspace
from tests.assets.changes import A_CHALLENGER, AFTER_THE_CHAMPION, check_refresh, reasons


def test_a_static_encoder_is_trained_wins_and_embeds_the_corpus(
    refreshed_home, change_settings, win
):
    change_settings(refreshed_home, "encoder.architecture", "static")
    found = reasons(refreshed_home)
    assert found["influence_encoder", None] == 'setting architecture: "transformer" → "static"'
    check_refresh(refreshed_home, A_CHALLENGER | AFTER_THE_CHAMPION)
    store = Workspace.open(refreshed_home).store
    champion = store.require("champion_encoder")
    modules = json.loads((store.folder(champion, "encoder") / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[-1] for module in modules] == [
        "StaticEmbedding",
        "Normalize",
    ]
    untrained = store.require("influence_encoder").summary["untrained"]
    assert champion.summary["encoder"] != untrained
