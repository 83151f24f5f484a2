"""Finding and making homes; the templates agree with the settings and with Dagster."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from influcoder_assets.config import Settings, load_settings
from influcoder_assets.home import find_demo_home, find_home, init_home
from influcoder_assets.settings_errors import allowed_text, settings_keys
from influcoder_assets.settings_models import WarmupAdapter
from influcoder_assets.settings_yaml import read_yaml
from influcoder_lib.errors import SettingsError, StoreError

PROJECT = Path(__file__).parents[2]
WITHOUT_DEFAULT = {"corpus.path", "behaviors", "behaviors.NAME.queries"}
ONLY_IN_AN_EXAMPLE = {
    f"target_model.adapter.{name}"
    for name in ("path", "samples", "samples_per_step", "epochs", "learning_rate")
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    init_home(tmp_path / "mine")
    return tmp_path / "mine"


def comment_above(lines: list[str], number: int) -> str:
    """The comment just above line `number` (from 1), as one line of words."""
    block: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#"):
            break
        block.insert(0, line.strip().removeprefix("#"))
    return " ".join(" ".join(block).split())


def test_a_given_folder_beats_the_environment(home, tmp_path, monkeypatch):
    init_home(tmp_path / "other")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "other"))
    assert find_home(home) == home.resolve()


def test_the_environment_beats_the_working_directory(home, tmp_path, monkeypatch):
    init_home(tmp_path / "dagster_home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert find_home(None) == home.resolve()


def test_the_demo_never_takes_the_home_of_the_environment(home, tmp_path, monkeypatch):
    init_home(tmp_path / "dagster_home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert find_demo_home(None) == (tmp_path / "dagster_home").resolve()
    assert find_demo_home(home) == home.resolve()


@pytest.mark.parametrize("unset", [True, False], ids=["unset", "empty"])
def test_without_anything_it_is_dagster_home_here_as_an_absolute_path(tmp_path, monkeypatch, unset):
    init_home(tmp_path / "dagster_home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "")
    if unset:
        monkeypatch.delenv("DAGSTER_HOME")
    assert find_home(None) == (tmp_path / "dagster_home").resolve()


@pytest.mark.parametrize("name", ["dagster.yaml", "influcoder.yaml"])
def test_a_folder_without_one_of_the_files_is_no_home(home, name):
    (home / name).unlink()
    with pytest.raises(SettingsError, match=f"has no {name}") as caught:
        find_home(home)
    assert str(home) in str(caught.value)
    assert "influcoder init DIR" in str(caught.value)


def test_the_error_says_what_chose_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="environment variable DAGSTER_HOME"):
        find_home(None)


def test_init_makes_two_files_and_two_empty_folders_and_returns_them(tmp_path):
    made = init_home(tmp_path / "a" / "b")
    assert sorted(made) == sorted((tmp_path / "a" / "b").rglob("*"))
    assert sorted(path.name for path in made) == [
        "corpus",
        "dagster.yaml",
        "influcoder.yaml",
        "queries",
    ]


def test_init_keeps_a_corpus_that_is_there(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_text("{}\n")
    made = init_home(tmp_path)
    assert tmp_path / "corpus" not in made
    assert (tmp_path / "corpus" / "a.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("name", ["dagster.yaml", "influcoder.yaml"])
def test_init_overwrites_nothing_and_writes_nothing_beside_it(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SettingsError, match=f"already a {name}"):
        init_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_init_below_a_file_says_that_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        init_home(tmp_path / "file" / "home")


def test_a_failed_init_leaves_nothing_behind(tmp_path):
    (tmp_path / "queries").write_text("a file where the folder goes")
    with pytest.raises(StoreError, match="queries"):
        init_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["queries"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_init_in_a_folder_that_is_read_only_says_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        init_home(tmp_path)


def test_the_template_loads_and_every_value_in_it_is_the_default(home):
    settings = load_settings(home)
    shortest = {"corpus": {"path": "corpus"}, "behaviors": {"toxic": {"queries": "x.jsonl"}}}
    (home / "influcoder.yaml").write_text(yaml.safe_dump(shortest))
    defaults = load_settings(home).model_dump(mode="json")
    given = settings.model_dump(mode="json")
    assert given["behaviors"]["toxic"].pop("queries") == "queries/toxic.jsonl"
    assert defaults["behaviors"]["toxic"].pop("queries") == "x.jsonl"
    assert given == defaults


def test_the_template_explains_every_key_just_above_it(home):
    document = read_yaml(home / "influcoder.yaml")
    lines = (home / "influcoder.yaml").read_text().splitlines()
    for key, field in settings_keys(Settings):
        if key in ONLY_IN_AN_EXAMPLE:
            continue
        comment = comment_above(
            lines, document.lines[tuple(key.replace("NAME", "toxic").split("."))]
        )
        assert field.description in comment, key
        if not allowed_text(field).startswith("a section"):
            assert f"Allowed: {allowed_text(field)}." in comment, key


def test_the_examples_in_the_template_load_when_they_are_uncommented(home):
    text = (home / "influcoder.yaml").read_text()
    blocks = re.findall(r"(?m)(?:^ *#   .*\n)+", text)
    examples = [yaml.safe_load(re.sub(r"(?m)^ *#   ", "", block)) for block in blocks]
    columns, rule, wanted, adapter, warmup, shared = examples
    data = yaml.safe_load(text)
    data["corpus"] |= columns
    data["behaviors"]["toxic"] |= rule
    data["behaviors"] |= wanted
    data["target_model"] |= adapter
    data |= shared
    (home / "influcoder.yaml").write_text(yaml.safe_dump(data))
    settings = load_settings(home)
    assert settings.corpus.columns.messages == "messages"
    assert settings.behaviors["toxic"].rule.method == "false_drop_rate"
    assert settings.behaviors["toxic"].known_good == home.resolve() / "queries/known_good.jsonl"
    assert settings.behaviors["helpful"].rule.kind == "wanted"
    assert settings.target_model.adapter.path == home.resolve() / "adapters/mine"
    assert settings.storage.location == "s3://bucket/prefix"
    data["target_model"] |= warmup
    (home / "influcoder.yaml").write_text(yaml.safe_dump(data))
    adapter = load_settings(home).target_model.adapter
    assert adapter.model_dump() == WarmupAdapter(source="warmup").model_dump()


@pytest.mark.parametrize("folder", ["template", "demo"])
def test_dagster_starts_on_the_home_with_its_storage_inside_and_telemetry_off(
    home, monkeypatch, folder
):
    from dagster import DagsterInstance

    if folder == "demo":
        shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with DagsterInstance.get() as instance:
        assert instance.root_directory == str(home)
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.python_log_level == "INFO"
        assert instance.managed_python_loggers == ["influcoder_lib", "influcoder_assets"]
        instance.get_runs_count()
    assert (home / "history").is_dir()


def test_the_demo_home_loads_and_measures_what_the_demo_corpus_has():
    settings = load_settings(PROJECT / "dagster_home")
    ((name, behavior),) = settings.behaviors.items()
    assert name == "toxic"
    assert behavior.rule.model_dump() == {
        "kind": "unwanted",
        "method": "fraction",
        "value": 0.1,
        "statistic": "max",
    }
    assert (behavior.positive_label, behavior.hard_negative_label) == ("unsafe", "safe_aligned")
    assert behavior.known_good == (PROJECT / "dagster_home/known_good/benign.jsonl").resolve()
    assert (settings.corpus.columns.label, settings.corpus.columns.source) == ("label", "source")
