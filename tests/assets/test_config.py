"""Settings: defaults, paths, and one error that names every problem."""

import json
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from influcoder_assets.config import Settings, load_settings, parse_settings
from influcoder_assets.settings_errors import settings_keys
from influcoder_assets.settings_yaml import Document
from influcoder_lib.errors import SettingsError

LEAST = {"corpus": {"path": "corpus"}, "behaviors": {"toxic": {"queries": "toxic.jsonl"}}}


@pytest.fixture
def load(tmp_path):
    """Loads a text, or a mapping, as the settings of a home."""

    def load_one(content: str | bytes | dict) -> Settings:
        file = tmp_path / "influcoder.yaml"
        if isinstance(content, dict):
            content = yaml.safe_dump(content)
        if isinstance(content, str):
            content = textwrap.dedent(content).encode()
        file.write_bytes(content)
        return load_settings(tmp_path)

    return load_one


def with_setting(dotted: str, value: object) -> dict:
    """The least settings that are valid, and one more; NAME is the behavior."""
    data = json.loads(json.dumps(LEAST))
    *sections, last = dotted.replace("NAME", "toxic").split(".")
    section = data
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return data


def test_the_least_settings_are_filled_with_the_documented_defaults(load):
    settings = load(LEAST)
    assert settings.corpus.max_characters == 200_000
    assert settings.behaviors["toxic"].rule.model_dump() == {
        "kind": "unwanted",
        "method": "fraction",
        "value": 0.05,
        "statistic": "max",
    }
    assert settings.target_model.model_dump() == {
        "path": "smollm2-135m-instruct",
        "dtype": "auto",
        "window": 512,
        "tokens_per_batch": None,
        "adapter": {"source": "fresh", "rank": 16, "seed": 0},
        "sketch": {"dimensions": 8192, "seed": 0},
    }
    assert settings.distillation.model_dump() == {
        "candidates_per_shard": 48,
        "candidates": 3000,
        "seed": 0,
        "influence": "centred",
        "validation": 0.2,
        "test": 0.2,
    }
    assert settings.encoder.model_dump() == {
        "path": "all-minilm-l6-v2",
        "registered_model": "influence-encoder",
        "architecture": "kernel",
        "dimension": 96,
        "window": 256,
        "recipe": "lean",
        "seeds": (0, 1, 2),
        "epochs": 8,
        "learning_rate": None,
        "queries_per_step": 8,
        "candidates_per_step": 16,
        "alpha": 0.5,
        "temperature": 0.05,
        "hard_share": 0.0,
    }
    assert settings.report.model_dump() == {"most_dropped": 0.5}


def test_every_setting_is_described():
    fields = dict(settings_keys(Settings))
    assert len(fields) > 40
    assert [key for key, field in fields.items() if not field.description] == []


def test_relative_paths_start_at_the_home_and_others_stay(load, tmp_path):
    data = with_setting("target_model.adapter", {"source": "peft", "path": "adapters/mine"})
    data["corpus"]["path"] = str(tmp_path.parent / "elsewhere")
    data["behaviors"]["toxic"]["known_good"] = "../good.csv"
    data["overrides"] = "~/overrides.csv"
    settings = load(data)
    assert settings.home == tmp_path.resolve()
    assert settings.corpus.path == tmp_path.parent / "elsewhere"
    assert settings.behaviors["toxic"].queries == tmp_path.resolve() / "toxic.jsonl"
    assert settings.behaviors["toxic"].known_good == tmp_path.resolve() / "../good.csv"
    assert settings.overrides == Path("~/overrides.csv").expanduser()
    assert settings.target_model.adapter.path == tmp_path.resolve() / "adapters/mine"


def test_model_names_stay_as_they_are_given(load):
    data = with_setting("target_model.path", "models/mine") | {"encoder": {"path": "org/name"}}
    settings = load(data)
    assert settings.target_model.path == "models/mine"
    assert settings.encoder.path == "org/name"


def test_a_json_dump_holds_what_the_user_wrote_and_no_path_of_this_machine(load, tmp_path):
    settings = load(with_setting("target_model.adapter", {"source": "peft", "path": "mine"}))
    dumped = settings.model_dump(mode="json")
    assert dumped["corpus"]["path"] == "corpus"
    assert dumped["behaviors"]["toxic"]["queries"] == "toxic.jsonl"
    assert dumped["target_model"]["adapter"] == {"source": "peft", "path": "mine"}
    assert settings.corpus.model_dump(mode="json")["path"] == "corpus"
    assert str(tmp_path) not in json.dumps(dumped)


def test_a_json_dump_loads_to_the_same_settings(load):
    settings = load(with_setting("overrides", "reviewed.csv"))
    assert load(settings.model_dump(mode="json")).model_dump() == settings.model_dump()


def test_settings_are_frozen(load):
    settings = load(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        settings.encoder.epochs = 3


@pytest.mark.parametrize("text", ["5e-5", "5.0e-5", "0.00005", "5E-5", "5.e-5"])
def test_a_learning_rate_may_be_written_as_people_write_it(load, text):
    minimal = "corpus: {path: c}\nbehaviors: {toxic: {queries: q.csv}}\n"
    assert load(f"{minimal}encoder: {{learning_rate: {text}}}").encoder.learning_rate == 5e-5


def test_a_whole_number_is_a_number_but_nothing_else_is_converted(load):
    assert load(with_setting("encoder.alpha", 1)).encoder.alpha == 1.0
    for given_value in (2.0, "2", True, None, [2]):
        with pytest.raises(SettingsError, match=r"encoder\.epochs"):
            load(with_setting("encoder.epochs", given_value))


def test_an_adapter_without_a_source_is_a_fresh_one(load):
    adapter = load(with_setting("target_model.adapter", {"rank": 4})).target_model.adapter
    assert adapter.model_dump() == {"source": "fresh", "rank": 4, "seed": 0}


def test_rows_may_come_as_chat_messages(load):
    columns = load(with_setting("corpus.columns", {"messages": "chat"})).corpus.columns
    assert columns.messages == "chat"


@pytest.mark.parametrize(
    ("dotted", "value", "said"),
    [
        ("corpus.path", 7, "7: this is no path"),
        ("corpus.path", " ", '" ": this is no path'),
        ("corpus.max_characters", 0, "allowed: a whole number, at least 1"),
        ("corpus.licences", "mit", "allowed: texts by the names of sources"),
        ("corpus.licences", {"wiki": 4.0}, "corpus.licences.wiki"),
        ("corpus.licences", {"wiki": " "}, "apache-2.0"),
        ("corpus.columns.prompt", "response", "cannot be the same column"),
        ("corpus.columns.label", "", "allowed: text that is not blank, or null"),
        ("corpus.columns", {"prompt": "p", "messages": "m"}, "leave prompt out"),
        ("behaviors", {}, "at least one behavior"),
        ("behaviors.Toxic", {"queries": "q"}, "lower-case letters"),
        ("behaviors.1st", {"queries": "q"}, "starts with a letter"),
        ("behaviors.toxic_mean", {"queries": "q"}, "no other behavior's with _mean behind it"),
        ("behaviors.NAME.rule.kind", "bad", "allowed: one of unwanted, wanted"),
        ("behaviors.NAME.rule.kind", "Unwanted", "did you mean unwanted?"),
        ("behaviors.NAME.rule.method", "top", "one of threshold, fraction, false_drop_rate"),
        ("behaviors.NAME.rule.statistic", "median", "one of mean, max"),
        ("behaviors.NAME.rule.value", 5, "more than 0 and less than 1"),
        ("behaviors.NAME.rule.value", 0, "more than 0 and less than 1"),
        ("behaviors.NAME.rule", {"method": "threshold"}, "rule.value"),
        ("behaviors.NAME.rule", {"method": "threshold", "value": 1.5}, "a score from -1 to 1"),
        ("behaviors.NAME.rule", {"method": "false_drop_rate"}, "at least 19 known-good rows"),
        ("behaviors.NAME.positive_label", "unsafe", "corpus.columns.label names no column"),
        ("behaviors.NAME.positive_label", 1, 'put it in quotes: "1"'),
        ("behaviors.NAME.hard_negative_label", True, 'put it in quotes: "true"'),
        ("behaviors.NAME.hard_negative_label", "trap", "positive_label, which is not given"),
        ("target_model.dtype", "float16", "allowed: one of auto, bfloat16, float32"),
        ("target_model.window", 8, "at least 16"),
        ("target_model", {"window": 4096, "tokens_per_batch": 1024}, "or lower window"),
        ("target_model.adapter", {"source": "pft"}, "did you mean peft?"),
        ("target_model.adapter", {"source": "warm"}, "did you mean warmup?"),
        ("target_model.adapter", {"source": "warmup", "epochs": 0}, "at least 1"),
        ("target_model.adapter", {"source": "peft"}, "target_model.adapter.path"),
        ("target_model.adapter", {"source": "peft", "path": "a", "rank": 4}, "adapter.rank"),
        ("target_model.adapter", "fresh", "a section with the keys source, rank, seed, path"),
        ("target_model.adapter.rank", 0, "at least 1"),
        ("target_model.sketch.dimensions", 10, "at least 64"),
        ("target_model.sketch", None, "a section with the keys dimensions, seed"),
        ("distillation.seed", -1, "at least 0"),
        ("distillation.influence", "centered", "did you mean centred?"),
        ("distillation.validation", 0.6, "validation + test less than 0.8"),
        ("distillation.test", 0.9, "less than 0.8"),
        ("encoder.registered_model", "my/encoder", "allowed: letters, digits, - and _"),
        ("encoder.registered_model", "", "allowed: letters, digits, - and _"),
        ("encoder.recipe", "best", "allowed: one of reference, lean"),
        ("encoder.seeds", [], "at least one"),
        ("encoder.seeds", [1, 1], "a seed is given twice"),
        ("encoder.seeds", [0, "1"], "encoder.seeds.1"),
        ("encoder.learning_rate", 0, "more than 0"),
        ("encoder.alpha", float("nan"), "at least 0, at most 1"),
        ("encoder.candidates_per_step", 1, "at least 2"),
        ("encoder.hard_share", 1.0, "less than 1"),
        ("report.most_dropped", 0, "more than 0, at most 1"),
    ],
)
def test_an_impossible_value_is_named_with_its_key_and_what_is_allowed(load, dotted, value, said):
    with pytest.raises(SettingsError) as caught:
        load(with_setting(dotted, value))
    text = str(caught.value)
    assert dotted.replace("NAME", "toxic").rsplit(".", 1)[0] in text
    assert said in text
    assert "allowed: " in text
    assert "have 1 problem." in text


@pytest.mark.parametrize(
    ("dotted", "meant"),
    [
        ("encodr", "did you mean encoder?"),
        ("corpus.colums", "did you mean columns?"),
        ("behaviors.NAME.rule.methd", "did you mean method?"),
        ("target_model.adapter.rnk", "did you mean rank?"),
        ("encoder.max_characters", "did you mean corpus.max_characters?"),
    ],
)
def test_an_unknown_key_comes_with_the_key_that_was_meant(load, dotted, meant):
    with pytest.raises(SettingsError) as caught:
        load(with_setting(dotted, 1))
    assert f"{dotted.replace('NAME', 'toxic')} (line" in str(caught.value)
    assert "there is no such key (its value is 1)" in str(caught.value)
    assert meant in str(caught.value)


def test_a_key_that_resembles_nothing_gets_the_list_and_no_guess(load):
    with pytest.raises(SettingsError) as caught:
        load(with_setting("corpus.zzz", 1))
    assert "allowed: one of path, columns, max_characters" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_the_home_cannot_be_set_in_the_file(load):
    with pytest.raises(SettingsError, match=r"home .*there is no such key"):
        load(LEAST | {"home": "elsewhere"})


def test_all_problems_are_told_at_once_in_the_order_of_the_file(load, tmp_path):
    with pytest.raises(SettingsError) as caught:
        load("""\
            corpus:
              max_characters: 1.5
            behaviors:
              Toxic: {queries: q.jsonl}
              mild:
                queries: m.jsonl
                rule: {kind: unwnted, value: 5}
              good:
                queries: g.jsonl
                rule: {method: false_drop_rate, value: 0.01}
            distillation:
              seed: 1
              seed: 2
              test: 0.7
            encoder:
              epoch: 3
            """)
    text = str(caught.value)
    said = [
        "The settings have 9 problems.",
        "corpus.path (line 1): this is required",
        "corpus.max_characters (line 2): 1.5 is not allowed",
        'behaviors.Toxic (line 4): "Toxic" is not allowed',
        'behaviors.mild.rule.kind (line 7): "unwnted" is not allowed',
        "behaviors.mild.rule.value (line 7): 5: with the method fraction this is a share",
        "behaviors.good.known_good (line 8): the method false_drop_rate needs",
        "distillation.seed (line 13): the key is given twice, first in line 12",
        "distillation.test (line 14): 0.7: validation (0.2) and test (0.7)",
        "encoder.epoch (line 16): there is no such key",
        f"where: {tmp_path / 'influcoder.yaml'}",
    ]
    positions = [text.find(part) for part in said]
    assert -1 not in positions, text
    assert positions == sorted(positions)


def test_false_drop_rate_with_known_good_rows_is_fine(load):
    data = with_setting("behaviors.NAME.rule", {"method": "false_drop_rate", "value": 0.01})
    data["behaviors"]["toxic"]["known_good"] = "good.jsonl"
    assert load(data).behaviors["toxic"].rule.value == 0.01


def test_a_long_value_is_shortened(load):
    with pytest.raises(SettingsError) as caught:
        load(with_setting("encoder.recipe", "x" * 5000))
    assert "…" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("corpus: {path: corpus\nbehaviors: 3\n", "line 2, column 10"),
        ("corpus:\n  path: corpus\n   columns: x\n", "line 3, column 11"),
        ("corpus:\n\tpath: corpus\n", "line 2, column 1"),
        ("corpus: !!python/object/apply:os.system ['true']\n", "line 1, column 9"),
        ("corpus: *nowhere\n", "line 1, column 9"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1"),
        (b"corpus:\n  path: caf\xe9\n", "not UTF-8 text"),
        (b"corpus:\n  path: caf\xe9\n", "line 2"),
        ("corpus: a\x07b\n", "special characters are not allowed"),
        ("- corpus\n- behaviors\n", "no mapping of keys to values"),
        ("just text", "no mapping of keys to values"),
        ("", "corpus: this is required"),
        ("# nothing but a comment\n", "behaviors: this is required"),
        ("corpus: 2024-13-45\n", "This is no YAML that can be read: month must be in"),
    ],
)
def test_what_is_no_settings_file_at_all_is_said_with_its_place(load, tmp_path, content, said):
    with pytest.raises(SettingsError) as caught:
        load(content)
    assert said in str(caught.value)
    assert str(tmp_path / "influcoder.yaml") in str(caught.value)


def test_a_byte_order_mark_is_no_problem(load):
    assert load(b"\xef\xbb\xbf" + yaml.safe_dump(LEAST).encode()).corpus.max_characters == 200_000


def test_a_missing_or_unreadable_file_says_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="influcoder init DIR"):
        load_settings(tmp_path)
    (tmp_path / "influcoder.yaml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
dotted_keys = st.sampled_from([key for key, _ in settings_keys(Settings)])


@settings(deadline=None)
@given(st.dictionaries(dotted_keys, anything, max_size=4))
def test_whatever_is_given_settings_load_or_a_settings_error_names_a_key(changes):
    data = json.loads(json.dumps(LEAST))
    for dotted, value in sorted(changes.items()):
        *sections, last = dotted.replace("NAME", "toxic").split(".")
        section = data
        for name in sections:
            if not isinstance(section.get(name), dict):
                section[name] = {}
            section = section[name]
        section[last] = value
    try:
        settings = parse_settings(Document(Path("influcoder.yaml"), data), Path("home"))
    except SettingsError as error:
        named = [line.split(":")[0].strip() for line in error.problem.splitlines()[1:]]
        assert any(name.split(".")[0] in Settings.model_fields for name in named)
    else:
        assert settings.behaviors
