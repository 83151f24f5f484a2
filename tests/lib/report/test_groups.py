"""Lengths and scripts: which bucket a sample is in."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.report import groups
from influcoder_lib.report.groups import (
    LENGTHS,
    OTHERS,
    SCRIPTS,
    add_groups,
    count_groups,
    dominant_script,
)

SCRIPT_OF_NAME = {"HIRAGANA": "Kana", "KATAKANA": "Kana", "CJK": "Han"} | {
    name.upper(): name for name in SCRIPTS if name not in ("Han", "Kana")
}


def table(prompts, responses, decisions=None):
    """Decided samples without labels and sources."""
    count = len(prompts)
    return pl.DataFrame(
        {
            "prompt": prompts,
            "response": responses,
            "decision": decisions or ["keep"] * count,
            "label": [None] * count,
            "source": [None] * count,
        },
        schema=dict.fromkeys(("prompt", "response", "decision", "label", "source"), pl.String),
    )


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The cat ﬁ ª É", "Latin"),
        ("Привет, мир", "Cyrillic"),
        ("καλημέρα", "Greek"),
        ("مرحبا بالعالم", "Arabic"),
        ("שלום", "Hebrew"),
        ("नमस्ते दुनिया", "Devanagari"),
        ("হ্যালো", "Bengali"),
        ("வணக்கம்", "Tamil"),
        ("สวัสดี", "Thai"),
        ("你好,世界", "Han"),
        ("ひらがな カタカナ 漢字", "Kana"),
        ("안녕하세요", "Hangul"),
        ("გამარჯობა", "other"),
        ("1 + 1 = 2 !? 🙂", "none"),
        ("", "none"),
        ("abc где", "Latin"),
        ("ab где", "Cyrillic"),
        ("ab გა", "Latin"),
    ],
)
def test_the_script_of_most_letters_counts_and_the_earlier_one_of_equals(text, script):
    samples = table([text, "", text], ["", text, text])
    assert dominant_script(samples).to_list() == [script] * 3


def test_prompt_and_response_count_together():
    samples = table(["где", "где"], ["abcd", "ab"])
    assert dominant_script(samples).to_list() == ["Latin", "Cyrillic"]


@given(st.lists(st.text("aéZ1 .яΩאعअ中あアก가ა़́", max_size=12), max_size=5))
@settings(max_examples=100, deadline=None)
def test_scripts_match_a_twin_that_reads_the_letters_names(texts):
    def slow(text):
        letters = [c for c in text if unicodedata.category(c).startswith("L")]
        scripts = [SCRIPT_OF_NAME.get(unicodedata.name(c).split()[0], "other") for c in letters]
        order = [*SCRIPTS, "other"]
        return max(order, key=lambda each: (scripts.count(each), -order.index(each)))

    expected = [slow(t) if any(map(str.isalpha, t)) else "none" for t in texts]
    assert dominant_script(table(texts, [""] * len(texts))).to_list() == expected


@pytest.mark.parametrize(
    ("characters", "bucket"),
    [
        (1, 0),
        (99, 0),
        (100, 1),
        (299, 1),
        (300, 2),
        (1000, 3),
        (2999, 3),
        (3000, 4),
        (9999, 4),
        (10_000, 5),
    ],
)
def test_length_is_that_of_the_response_in_characters(characters, bucket):
    (row,) = count_groups(table(["a long prompt " * 30], ["я" * characters]))["length"]
    assert row == {"name": LENGTHS[bucket], "kept": 1, "dropped": 0, "partial": False}


def test_every_group_counts_every_sample_once():
    decided = table(["a", "b", "в"], ["x", "y" * 200, "z"], ["keep", "drop", "drop"])
    found = count_groups(decided.with_columns(label=pl.Series(["l", None, "l"])))
    assert found["label"] == [
        {"name": "l", "kept": 1, "dropped": 1, "partial": False},
        {"name": None, "kept": 0, "dropped": 1, "partial": False},
    ]
    for rows in found.values():
        assert (sum(row["kept"] for row in rows), sum(row["dropped"] for row in rows)) == (1, 2)


def test_no_sample_is_in_no_group():
    assert count_groups(table([], [])) == {"label": [], "source": [], "length": [], "script": []}


COUNTS = st.fixed_dictionaries(
    {
        "name": st.none() | st.sampled_from("abcdefg"),
        "kept": st.integers(0, 9),
        "dropped": st.integers(0, 9),
        "partial": st.just(False),
    }
)


@given(st.lists(st.lists(COUNTS), min_size=1, max_size=5), st.integers(1, 8))
def test_of_many_names_the_largest_are_counted_and_no_row_is_lost(parts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "MOST_NAMED", most)
        found = add_groups([add_groups([part]) for part in parts])
    truth = {row["name"]: row for row in add_groups(parts)}
    for count in ("kept", "dropped"):
        assert sum(row[count] for row in found) == sum(row[count] for row in truth.values())
    named = {row["name"]: row for row in found if row["name"] != OTHERS}
    assert len(named) == min(most, len(truth)) or len(found) == len(named) + 1
    for name, row in named.items():
        assert row["partial"] or row == truth[name]
        assert row["kept"] <= truth[name]["kept"]
        assert row["dropped"] <= truth[name]["dropped"]
    if len(truth) <= most:
        assert list(truth.values()) == found


def test_a_row_is_partial_only_where_some_of_it_may_be_among_the_others(monkeypatch):
    monkeypatch.setattr(groups, "MOST_NAMED", 2)

    def part(**rows):
        return [{"name": n, "kept": k, "dropped": 0, "partial": False} for n, k in rows.items()]

    cut = add_groups([part(a=9, b=5, c=1)])
    assert cut == [
        {"name": OTHERS, "kept": 1, "dropped": 0, "partial": False},
        *part(a=9, b=5),
    ]
    whole = add_groups([cut, part(a=1, c=8)])
    assert [(row["name"], row["kept"], row["partial"]) for row in whole] == [
        (OTHERS, 6, False),
        ("a", 10, False),
        ("c", 8, True),
    ]
    again = add_groups([whole, part(c=1)])
    assert [row["partial"] for row in again] == [False, False, True]
