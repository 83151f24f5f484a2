"""Finding models: what is safe is taken, and everything else is named."""

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from influcoder_lib import models
from influcoder_lib.errors import ModelError
from influcoder_lib.models import ModelFiles, Packaged
from tests.tiny import tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a model named `small` in it; returns the weights' file."""
    site = tmp_path / "site"
    (site / "small_model-1.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n"
    (site / "small_model-1.0.dist-info" / "METADATA").write_text(metadata)
    (site / "small_model").mkdir()
    # Locating a packaged model must not import its package.
    (site / "small_model" / "__init__.py").write_text("raise SystemExit('imported')")
    weights = site / "small_model" / "small.gguf"
    weights.write_bytes(b"GGUF weights")
    monkeypatch.syspath_prepend(str(site))
    digest = hashlib.sha256(b"GGUF weights").hexdigest()
    entry = Packaged("small-model", "small_model/small.gguf", digest)
    monkeypatch.setitem(models.PACKAGED, "small", entry)
    return weights


def refusal(name: str, home: Path) -> str:
    with pytest.raises(ModelError) as caught:
        models.locate(name, home)
    return str(caught.value)


def test_a_packaged_model_is_found_without_its_package_being_imported(packaged, tmp_path):
    assert models.locate("small", tmp_path) == ModelFiles("small", packaged.parent, packaged)


def test_a_packaged_model_with_another_hash_is_an_error(packaged, tmp_path):
    packaged.write_bytes(b"GGUF weighty")
    text = refusal("small", tmp_path)
    assert "The packaged model 'small' is not the file it should be." in text
    assert str(packaged) in text
    assert models.PACKAGED["small"].sha256 in text
    assert "reinstall small-model from requirements.lock" in text


def test_a_packaged_model_without_its_file_is_an_error(packaged, tmp_path):
    packaged.unlink()
    text = refusal("small", tmp_path)
    assert "'small' is incomplete" in text
    assert str(packaged) in text


def test_a_packaged_model_that_is_not_installed_is_an_error(tmp_path, monkeypatch):
    entry = Packaged("influcoder-no-such-model", "x/y.gguf", "0" * 64)
    monkeypatch.setitem(models.PACKAGED, "absent", entry)
    text = refusal("absent", tmp_path)
    assert "The packaged model 'absent' is not installed." in text
    assert "install the package influcoder-no-such-model" in text


@pytest.mark.parametrize(
    "name", ["nobody/nothing", "nothing", "no such model!", "a/b/c", "/a/b", "~nobody-here/x"]
)
@pytest.mark.usefixtures("offline")
def test_an_unknown_model_is_an_error_that_says_what_there_is(tmp_path, name):
    text = refusal(name, tmp_path)
    assert f"There is no model {name!r}: " in text
    assert "smollm2-135m-instruct, all-minilm-l6-v2" in text
    assert "a folder, absolute or relative to the home, or a name on the hub" in text


@pytest.mark.usefixtures("offline")
def test_a_packaged_model_s_name_that_is_nearly_right_is_guessed(tmp_path):
    assert "did you mean all-minilm-l6-v2?" in refusal("all-MiniLM-L6v2", tmp_path)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("some/model", ("some/model", None)), ("some/model@4f2a", ("some/model", "4f2a"))],
)
def test_a_model_on_the_hub_is_taken_at_the_revision_that_is_named(
    copy, tmp_path, monkeypatch, name, asked
):
    def snapshot(repository, *, revision, allow_patterns):
        assert (repository, revision) == asked
        assert not any(".bin" in each for each in allow_patterns)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert models.locate(name, tmp_path) == ModelFiles(name, copy, None)


def test_a_hub_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "There is no model 'nobody/nothing': " in refusal("nobody/nothing", tmp_path)


def test_a_folder_is_relative_to_the_home_absolute_or_below_the_users_own(
    copy, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    for name, home in (("copy", tmp_path), (str(copy), elsewhere), ("~/copy", elsewhere)):
        assert models.locate(name, home) == ModelFiles(name, copy, None)


def test_a_gguf_is_found_by_its_name_or_by_its_folder(tmp_path):
    file = tmp_path / "models" / "some.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    for name in ("models/some.gguf", "models"):
        assert models.locate(name, tmp_path) == ModelFiles(name, file.parent, file)
    (tmp_path / "models" / "other.gguf").write_bytes(b"GGUF")
    assert "has no weights" in refusal("models", tmp_path)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "deep/weights.pkl"])
def test_a_folder_with_only_pickles_is_an_error_that_names_them(copy, tmp_path, file):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    (copy / file).parent.mkdir(exist_ok=True)
    torch.save(weights, copy / file)
    text = refusal("copy", tmp_path)
    assert f"The model 'copy' has its weights only as pickles ({Path(file).name})." in text
    assert str(copy) in text
    assert "a pickle can run code" in text
    assert "convert the weights to safetensors" in text


def test_a_folder_without_weights_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    text = refusal("empty", tmp_path)
    assert "The model 'empty' has no weights." in text


def test_a_models_fingerprint_is_what_is_read_of_it_wherever_it_lies(target, copy, tmp_path):
    same = models.locate(str(target), tmp_path).fingerprint()
    files = models.locate("copy", tmp_path)
    (copy / "README.md").write_text("a text that no one reads")
    assert files.fingerprint() == same
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert files.fingerprint() != same


def test_a_ggufs_fingerprint_is_that_of_its_file_alone(packaged, tmp_path):
    files = models.locate("small", tmp_path)
    before = files.fingerprint()
    (packaged.parent / "config.json").write_text("{}")
    assert files.fingerprint() == before
    packaged.write_bytes(b"others")
    assert files.fingerprint() != before


def test_an_encoder_of_known_modules_is_taken(encoder, tmp_path):
    assert models.check_encoder(models.locate(str(encoder), tmp_path)) == encoder


@pytest.mark.parametrize(
    "kind", ["own.Pooling", "os.system", "sentence_transformers.models.Own", "Pooling", ""]
)
def test_an_encoder_with_a_module_of_its_own_is_an_error_that_names_it(encoder, tmp_path, kind):
    copy = shutil.copytree(encoder, tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = kind
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError) as caught:
        models.check_encoder(models.locate("copy", tmp_path))
    text = str(caught.value)
    assert f"The encoder asks for a module of its own: {kind!r}." in text
    assert str(copy / "modules.json") in text
    assert "Normalize, Pooling, StaticEmbedding, Transformer" in text


def test_what_is_no_sentence_encoder_is_an_error(target, packaged, tmp_path):
    for name in (str(target), "small"):
        with pytest.raises(ModelError, match="is not a sentence-transformers encoder"):
            models.check_encoder(models.locate(name, tmp_path))


@pytest.mark.parametrize("text", ["[{", '{"a": 1}', '["Pooling"]', "3", "[{}]"])
def test_a_list_of_modules_that_cannot_be_read_is_an_error(encoder, tmp_path, text):
    copy = shutil.copytree(encoder, tmp_path / "copy")
    (copy / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules cannot be read(.|\n)*modules\.json"):
        models.check_encoder(models.locate("copy", tmp_path))
