"""What the pipeline says of input that it cannot work with: each by its message."""

import gzip
import json
import random
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from influcoder_assets.maker import current_plan
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError, InflucoderError, ModelError, StoreError
from influcoder_lib.estimates import rows_and_characters
from tests.assets import tiny_home
from tests.assets.tiny_home import BEHAVIOR


def failure_to_plan(home: Path, kind: type[InflucoderError]) -> str:
    """What is said when a plan is asked for: nothing at all can be made."""
    with pytest.raises(kind) as caught:
        current_plan(Workspace.open(home))
    return str(caught.value)


def failure_to_make(home: Path, kind: type[InflucoderError], asset: str) -> str:
    """What is said when one asset is to be made."""
    workspace = Workspace.open(home)
    with pytest.raises(kind) as caught:
        tiny_home.make(workspace, asset, None)
    return str(caught.value)


def test_no_query_file_fails_the_queries_but_not_the_corpus(new_home):
    (new_home / "queries" / "rude.jsonl").unlink()
    refreshed = tiny_home.refresh(new_home)
    (said,) = refreshed.failures
    assert said.startswith("behavior_queries: The file of behaviors.rude.queries does not exist.")
    assert str(new_home / "queries" / "rude.jsonl") in said
    assert {asset for asset, _ in refreshed.made} == {
        "corpus",
        "target_adapter",
        "gradient_projections",
    }
    assert tiny_home.plan(new_home) == []


def test_a_query_file_without_rows(new_home):
    (new_home / "queries" / "rude.jsonl").write_text("")
    said = failure_to_make(new_home, DataError, "behavior_queries")
    assert "empty" in said
    assert "rude.jsonl" in said


def test_a_bad_row_in_a_query_file_is_an_error_that_names_it(new_home):
    path = new_home / "queries" / "rude.jsonl"
    tiny_home.write_rows(path, [*tiny_home.queries(), {"prompt": "a", "response": None}])
    said = failure_to_make(new_home, DataError, "behavior_queries")
    assert "1 rows of behaviors.rude.queries are bad" in said
    assert f"{path}, row {tiny_home.QUERIES + 1}, field response" in said
    assert "mend or remove those rows" in said


def test_a_missing_known_good_file(refreshed_home):
    (refreshed_home / "queries" / "known_good.jsonl").unlink()
    said = failure_to_make(refreshed_home, DataError, "calibration_scores")
    assert "The file of behaviors.rude.known_good does not exist." in said


def test_a_missing_reviewer_s_list(refreshed_home, change_settings):
    change_settings(refreshed_home, "overrides", "reviewed.csv")
    refreshed = tiny_home.refresh(refreshed_home)
    assert len(refreshed.failures[0].split("\n\n")) == len(tiny_home.SHARDS)
    assert "The reviewer's list cannot be read" in refreshed.failures[0]
    assert "reviewed.csv" in refreshed.failures[0]
    assert tiny_home.plan(refreshed_home) == []
    (refreshed_home / "reviewed.csv").write_text("sample_id,decision,note\n")
    assert tiny_home.plan(refreshed_home) == [("curation_report", None, "reviewers_list changed")]
    assert tiny_home.refresh(refreshed_home).made == {("curation_report", None)}


def test_too_few_queries_to_split_counts_them(new_home):
    tiny_home.write_rows(new_home / "queries" / "rude.jsonl", tiny_home.queries(3))
    workspace = Workspace.open(new_home)
    for shard in tiny_home.SHARDS:
        tiny_home.make(workspace, "corpus", shard)
        tiny_home.make(workspace, "gradient_projections", shard)
    tiny_home.make(workspace, "behavior_queries", None)
    said = failure_to_make(new_home, DataError, "distillation_set")
    counted, least = (
        json.loads(text[text.index("{") : text.index("}") + 1]) for text in said.split("allowed")
    )
    assert sum(counted.values()) <= 3
    assert least == {"train": 4, "validation": 2, "test": 2}
    assert "give 30 query samples or more, of all behaviors together" in said


def test_an_empty_corpus_folder(new_home):
    shutil.rmtree(new_home / "corpus")
    (new_home / "corpus").mkdir()
    said = failure_to_plan(new_home, DataError)
    assert "The corpus has no shards." in said
    assert ".jsonl, .jsonl.gz, .csv, .parquet" in said


def test_no_corpus_folder(new_home):
    shutil.rmtree(new_home / "corpus")
    assert "The corpus folder does not exist." in failure_to_plan(new_home, DataError)


@pytest.mark.parametrize("key", ["target_model.path", "encoder.path"])
def test_an_unknown_model_says_where_models_come_from(new_home, change_settings, key):
    change_settings(new_home, key, "models/none/there")
    said = failure_to_plan(new_home, ModelError)
    assert (
        "There is no model 'models/none/there': there is no such folder, and no model on the hub "
        f"has such a name.\n  where: {key} in influcoder.yaml\n"
    ) in said
    assert "a packaged model" in said
    assert "a folder, absolute or relative to the home, or a name on the hub" in said


def test_a_model_that_the_hub_does_not_give_is_unknown_too(new_home, change_settings, monkeypatch):
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("the hub cannot be reached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    change_settings(new_home, "target_model.path", "nobody/nothing")
    said = failure_to_plan(new_home, ModelError)
    assert "There is no model 'nobody/nothing': there is no such folder" in said
    assert "the hub cannot be reached\n  where: target_model.path in influcoder.yaml" in said


def test_an_unknown_model_fails_a_run_with_its_message_and_no_trace(new_home, change_settings):
    change_settings(new_home, "target_model.path", "models/none/there")
    refreshed = tiny_home.refresh(new_home)
    assert refreshed.made == set()
    (said,) = refreshed.failures
    assert said.startswith("There is no model 'models/none/there'")
    assert "Stack Trace" not in said


@pytest.mark.parametrize("folder", ["target", "encoder"])
def test_a_model_folder_with_only_pickles_is_refused(new_home, folder):
    shutil.rmtree(new_home / "models" / folder)
    (new_home / "models" / folder).mkdir()
    (new_home / "models" / folder / "pytorch_model.bin").write_bytes(b"a pickle")
    said = failure_to_plan(new_home, ModelError)
    assert f"'models/{folder}' has its weights only as pickles (pytorch_model.bin)" in said
    assert "convert the weights to safetensors" in said


def test_an_encoder_that_brings_code_of_its_own_is_refused(refreshed_home):
    modules = refreshed_home / "models" / "encoder" / "modules.json"
    listed = json.loads(modules.read_text())
    listed[0]["type"] = "custom.Transformer"
    modules.write_text(json.dumps(listed))
    said = failure_to_make(refreshed_home, ModelError, "influence_encoder")
    assert "The encoder asks for a module of its own: 'custom.Transformer'" in said


def test_a_data_folder_that_cannot_be_written(new_home):
    # Root may write into any folder, but nobody into a file.
    (new_home / "data").write_text("in the way")
    said = failure_to_plan(new_home, StoreError)
    assert "The data folder cannot be written" in said
    assert str(new_home / "data") in said
    assert "give this user write access" in said


def test_a_store_that_became_unwritable_says_so(refreshed_home):
    shutil.rmtree(refreshed_home / "data" / "staging", ignore_errors=True)
    (refreshed_home / "data" / "staging").write_text("in the way")
    said = failure_to_make(refreshed_home, StoreError, "behavior_queries")
    assert "The data folder cannot be written" in said


def test_files_that_cannot_be_read_do_not_stop_the_estimate(tmp_path):
    whole, cut, broken = (tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"))
    whole.write_bytes(b"0123456789\n" * 4)
    cut.write_bytes(gzip.compress(random.Random(0).randbytes(2000))[:1000])
    broken.write_bytes(b"PAR1 is how it begins")
    assert rows_and_characters([whole, cut, broken]) == (4, 11)


def test_a_damaged_artifact_is_not_used(refreshed_home):
    store = Workspace.open(refreshed_home).store
    path = store.path(store.require("behavior_queries"), "queries.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    said = failure_to_make(refreshed_home, StoreError, "query_embeddings")
    assert "queries.parquet of behavior_queries is damaged" in said
    assert str(path) in said


def test_a_behavior_that_nobody_is_labelled_with_is_left_out_of_the_comparison(
    refreshed_home, change_settings
):
    change_settings(refreshed_home, f"behaviors.{BEHAVIOR}.positive_label", "nobody")
    assert tiny_home.refresh(refreshed_home).failures == []
    store = Workspace.open(refreshed_home).store
    comparison = json.loads(
        store.path(store.require("encoder_comparison"), "comparison.json").read_text()
    )
    assert [table["title"] for table in comparison["tables"]] == ["Fidelity to the teacher"]
