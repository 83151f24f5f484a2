"""The dataset card: metadata for the hub, and words that data cannot turn into markup."""

import pytest
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from influcoder_lib.export.card import MAX_ROWS, size_category
from tests.lib.export.stored import Text

HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "a | b || c",
    "---\nlicense: mit",
    "# head\n\n- item",
    "`code` ``` ~~~",
    "{{ 7 * 7 }}{% raw %}",
    "https://example.org www.example.org me@example.org",
    "**bold** __under__ ~~gone~~ <!-- x",
]


@pytest.fixture
def card(export):
    """Exports, and gives the card as the hub reads it."""

    def run(**arguments) -> DatasetCard:
        folder, _ = export(**arguments)
        return DatasetCard((folder / "README.md").read_text(encoding="utf-8"))

    return run


def tokens(text: str) -> list:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return [each for block in parser.parse(text) for each in (block, *(block.children or []))]


def cells(text: str) -> list[str]:
    """What the reader sees in the tables' cells."""
    found = tokens(text)
    return [
        "".join(part.content for part in found[i + 1].children)
        for i, each in enumerate(found)
        if each.type in ("td_open", "th_open")
    ]


def test_the_hub_finds_size_parts_and_columns(card):
    data = card().data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"] == [
        {"config_name": "default", "data_files": "data/*.parquet"},
        {"config_name": "dropped", "data_files": "dropped/*.parquet"},
    ]
    default, dropped = (info["features"] for info in data["dataset_info"])
    assert [each["name"] for each in default][:3] == ["sample_id", "prompt", "response"]
    assert {"reason", "rule", "encoder"} <= {each["name"] for each in dropped}
    assert "license" not in data


def test_a_part_without_rows_is_not_announced(card):
    data = card(shards=["kept.whole"], form="jsonl").data.to_dict()
    assert data["configs"] == [{"config_name": "default", "data_files": "data/*.jsonl"}]
    assert [each["config_name"] for each in data["dataset_info"]] == ["default"]


def test_one_licence_of_all_sources_is_that_of_the_dataset(card):
    shown = card(shards=["kept.whole"], licences={"chat": "CC-BY-4.0", "other": "mit"})
    assert shown.data.license == "cc-by-4.0"
    assert "CC-BY-4.0" in cells(shown.text)


def test_the_licence_is_that_of_all_sources_not_only_of_those_that_the_table_shows(card, stored):
    texts = [Text("a", f"b{i}", source=f"source {i:03}") for i in range(MAX_ROWS + 1)]
    stored.shard("new.jsonl", texts)
    licences = {text.source: "mit" for text in texts}
    assert card(shards=["new.jsonl"], licences=licences).data.license == "mit"
    del licences[f"source {MAX_ROWS:03}"]
    assert card(shards=["new.jsonl"], licences=licences, name="other").data.license == "other"


def test_different_licences_are_other_and_stand_in_the_table_of_sources(card):
    shown = card(licences={"chat": "mit"})
    assert shown.data.license == "other"
    rows = cells(shown.text)
    assert rows[rows.index("chat") : rows.index("chat") + 5] == ["chat", "mit", "1", "2", "66.7 %"]
    assert rows[rows.index("forum") + 1] == "not given"
    assert rows[rows.index("(none)") + 1] == "not given"


def test_it_counts_rows_by_label_and_by_reason(card):
    rows = cells(card().text)
    assert rows[rows.index("rude", rows.index("label")) :][:4] == ["rude", "0", "3", "100 %"]
    assert rows[rows.index("unwanted fraction 0.1 on max") :][:3] == [
        "unwanted fraction 0.1 on max",
        "rude",
        "4",
    ]


def test_it_names_rule_encoder_teacher_fidelity_and_headline(card):
    text = card().text
    rows = cells(text)
    rule = ["rude", "drop the highest 10.0 % of the calibration set", "0.2500", "max", "4"]
    assert rows[rows.index("rude") :][:5] == rule
    assert f"version 1, fingerprint {'1' * 32}" in rows
    assert f"models/target, fingerprint {'f' * 32}" in rows
    assert rows[rows.index("fidelity, per query") + 1] == "0.2500"
    assert r"It loses 1 of 2 comparisons\." in text
    assert "not the one in use" not in text


def test_a_comparison_of_another_encoder_is_not_taken_for_that_of_the_one_in_use(card, stored):
    stored.judge("2" * 32)
    assert "Of the latest trained encoder, which is not the one in use:" in card().text


def test_what_is_out_of_date_is_said_loudly_and_only_then(card):
    assert "34 steps of the pipeline had still to be made" in card(out_of_date=34, name="old").text
    assert "Out of date" not in card(name="new").text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_the_data_are_shown_letter_by_letter(card, stored, name):
    stored.shard("new.jsonl", [Text("a", "b", name, name)])
    shown = card(shards=["new.jsonl"], licences={name: name})
    plain = card(shards=["kept.whole"], licences={"chat": "other text"}, name="plain")
    seen = " ".join(name.split())
    rows = [each.replace("\u2060", "") for each in cells(shown.text)]
    assert rows.count(seen) == 3
    kinds = [each.type for each in tokens(shown.text) if each.type != "text_special"]
    usual = [each.type for each in tokens(plain.text) if each.type != "text_special"]
    assert sorted(set(kinds)) == sorted(set(usual))
    assert shown.data.to_dict().keys() == plain.data.to_dict().keys()


def test_a_long_table_is_cut(card, stored):
    texts = [Text("a", f"b{i}", source=f"source {i:03}") for i in range(MAX_ROWS + 7)]
    stored.shard("new.jsonl", texts)
    text = card(shards=["new.jsonl"]).text
    assert sum(cell.startswith("source ") for cell in cells(text)) == MAX_ROWS
    assert "… and 7 more." in text
    assert "No row has a label." in text


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (123_456, "100K<n<1M"),
        (10**9, "1B<n<10B"),
        (10**12, "n>1T"),
    ],
)
def test_sizes_have_the_names_of_the_hub(rows, category):
    assert size_category(rows) == category
