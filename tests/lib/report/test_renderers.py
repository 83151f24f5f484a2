"""Both renderers: what they show, what they mask, and that data can never become markup."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from influcoder_lib.report import pictures
from influcoder_lib.report.escaping import escape
from influcoder_lib.report.html import render_html
from influcoder_lib.report.markdown import render_markdown
from influcoder_lib.report.wording import percent

HOSTILE = [
    "<script>alert(1)</script>",
    "](javascript:alert(1))",
    "![x](data:text/html,x)",
    "a | b || c",
    "`code` ``` ~~~",
    "{{7*7}}{% raw %}",
    "\"onmouseover='x' &lt; &amp;",
    "**bold** __under__ ~~gone~~ <!-- x",
    "https://example.org www.example.org me@example.org",
]
SHAPES = {
    "one behavior": {},
    "several behaviors": {"behaviors": ("toxic", "rude", "loud", "shy")},
    "no labels": {"labelled": False},
    "nothing dropped by a rule": {"threshold": 0.9},
    "everything dropped": {"threshold": -0.9},
    "wanted": {"kind": "wanted"},
    "first": {"first": True},
}


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """A stand-in for the drawing, which test_pictures.py covers and which takes seconds here."""
    if "real_pictures" not in request.fixturenames:
        for name in ("funnel", "score_histogram", "threshold_curve"):
            monkeypatch.setattr(pictures, name, lambda *_: b"drawn")


@pytest.fixture
def real_pictures():
    """Draw, in a test that asks for it."""


class Page(HTMLParser):
    """Tags, attributes and texts of a page; a text knows the elements that it stands in."""

    VOID = frozenset({"meta", "img", "source", "br", "hr"})

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.stack), data))

    def handle_comment(self, data):
        raise AssertionError("the page holds a comment")

    @property
    def text(self):
        return "\n".join(data for _, data in self.texts)


def page_of_markdown(text):
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Page(parser.render(text))


@pytest.mark.parametrize("shape", SHAPES)
def test_html_is_well_formed_and_self_contained(make_report, shape):
    text = render_html(make_report(**SHAPES[shape]))
    page = Page(text)
    assert page.stack == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "://" not in text
    for tag, name, value in page.attributes:
        if name in ("src", "srcset"):
            assert value.startswith("data:image/png;base64,")
        if name == "href":
            assert value.startswith("#")
            assert ("section", "id", value[1:]) in page.attributes
        assert not name.startswith("on"), tag


@pytest.mark.parametrize("shape", SHAPES)
def test_texts_stand_only_inside_closed_details(make_report, shape):
    page = Page(render_html(make_report(**SHAPES[shape])))
    secrets = [stack for stack, data in page.texts if "SECRET" in data]
    assert secrets
    assert all("details" in stack and "summary" not in stack for stack in secrets)
    assert not any("SECRET" in (value or "") for _, _, value in page.attributes)
    assert not any(name == "open" for _, name, _ in page.attributes)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_data_is_inert_in_html(make_report, hostile):
    behaviors = ("toxic", hostile)
    page = Page(render_html(make_report(hostile, behaviors)))
    plain = Page(render_html(make_report("plain", ("toxic", "other"))))
    assert page.tags == plain.tags
    names = [(tag, name) for tag, name, _ in page.attributes]
    assert names == [(tag, name) for tag, name, _ in plain.attributes]
    for text in (f"Headline {hostile}", f"SECRET {hostile}", f"Table {hostile}"):
        assert text in page.text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_data_is_inert_in_markdown(make_report, hostile):
    behaviors = ("toxic", hostile)
    page = page_of_markdown(render_markdown(make_report(hostile, behaviors)))
    plain = page_of_markdown(render_markdown(make_report("plain", ("toxic", "other"))))
    assert page.tags == plain.tags
    assert not {"a", "script", "code", "pre", "s"} & set(page.tags)
    shown = page.text.replace("\u2060", "")
    for text in (f"Headline {hostile}", f"Table {hostile}", f"{hostile}one.jsonl:"):
        assert text in shown


@pytest.mark.parametrize("shape", SHAPES)
def test_markdown_shows_the_figures_and_never_a_text(make_report, shape):
    text = render_markdown(make_report(**SHAPES[shape]))
    page = page_of_markdown(text)
    assert "SECRET" not in text
    assert page.tags[0] == "h1"
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert images
    assert all(value.startswith("data:image/png;base64,") for value in images)
    assert re.search(r"Warning:.*lacks 1", text)


def test_both_show_the_reasons_of_quarantine_with_most_rows_and_count_the_others(make_report):
    reasons = {f"reason {i}": 200 - i for i in range(130)}
    report = dataclasses.replace(make_report(), quarantine=reasons)
    for page, shown, others in (
        (Page(render_html(report)), 100, "… and 30 more reasons"),
        (page_of_markdown(render_markdown(report)), 30, "… and 100 more rows"),
    ):
        texts = [text for _, text in page.texts]
        assert [text for text in texts if text in reasons] == list(reasons)[:shown]
        assert any(others in text for text in texts)


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (None, "—"),
        (0, "0 %"),
        (1e-7, "< 0.01 %"),
        (0.0001, "0.01 %"),
        (0.0123, "1.2 %"),
        (0.9999, "99.99 %"),
        (0.999999, "> 99.99 %"),
        (1, "100 %"),
    ],
)
def test_what_is_nearly_nothing_or_nearly_all_is_neither(part, written):
    assert percent(part) == written


def test_markdown_keeps_to_a_few_pictures_and_says_so(make_report):
    text = render_markdown(make_report(behaviors=("a", "b", "c", "d", "e")))
    assert text.count("](data:image/png") == 7
    assert "Pictures and samples of d, e are in the HTML report" in text


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
@settings(max_examples=200, deadline=None)
def test_escaped_text_reads_letter_by_letter(text):
    shown = page_of_markdown(f"| a |\n| --- |\n| x{escape(text)}y |")
    written = " ".join(text.split())
    assert set(shown.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    cell = "".join(data for stack, data in shown.texts if stack[-1:] == ("td",))
    assert cell.replace("\u2060", "") == f"x{written}y".replace("\u2060", "")


@pytest.mark.parametrize("address", ["https://a.org", "HTTP://a.org", "www.a.org", "me@a.org"])
def test_no_address_is_left_whole_for_a_viewer_that_makes_links(address):
    seen = page_of_markdown(escape(address)).text
    assert not re.search(r"https?://|www\.|@a", seen, re.IGNORECASE)
    assert seen.replace("\u2060", "").strip() == address


def test_the_best_figure_is_bold_in_both(make_report):
    report = make_report()
    assert "<strong>0.500 ± 0.010</strong>" in render_html(report)
    page = page_of_markdown(render_markdown(report))
    bold = [data for stack, data in page.texts if stack[-1:] == ("strong",)]
    assert {"0.500 ± 0.010", "0.750"} <= set(bold)


def test_markdown_has_no_picture_drawn_that_the_html_has(make_report, real_pictures):
    report = make_report()
    kinds = (pictures.score_histogram, pictures.threshold_curve, pictures.funnel)
    for draw in kinds:
        draw.cache_clear()
    render_html(report)
    assert [draw.cache_info().misses for draw in kinds] == [2, 2, 2]
    render_markdown(report)
    assert [draw.cache_info().misses for draw in kinds] == [2, 2, 2]


def test_rendering_is_repeatable(make_report, real_pictures):
    assert render_html(make_report()) == render_html(make_report())
    assert render_markdown(make_report()) == render_markdown(make_report())


def test_both_renderers_embed_the_pictures_themselves(make_report, real_pictures):
    report = make_report("$x$")
    html, markdown = render_html(report), render_markdown(report)
    light = pictures.LIGHT
    drawn = [
        pictures.funnel(report.by_shard, light),
        pictures.score_histogram(report.behaviors[0], light),
    ]
    for png in drawn:
        encoded = base64.b64encode(png).decode()
        assert encoded in html
        assert encoded in markdown


def test_both_tell_which_labels_the_pictures_cannot_write(make_report):
    key = "In the pictures, whose font lacks their letters: label 1 is 有害 0; label 2 is 有害 1."
    report = make_report("有害")
    assert key in render_html(report)
    assert key in page_of_markdown(render_markdown(report)).text
    for text in (render_html(make_report()), render_markdown(make_report())):
        assert "whose font lacks" not in text


def test_samples_at_the_cut_are_ordered_around_the_threshold(make_report):
    behavior = make_report().behaviors[0]
    shown = render_html(make_report()).split("At the cut")[1].split("highest</h3>")[0]
    scores = [
        float(text) for text in re.findall(r'<summary><span class="number">(-?[\d.]+)<', shown)
    ]
    assert len(scores) == 20
    assert scores == sorted(scores, reverse=True)
    assert scores[9] > behavior.rule.threshold >= scores[10]


def test_the_first_report_says_so_and_a_later_one_what_changed(make_report):
    for render in (render_html, lambda report: page_of_markdown(render_markdown(report)).text):
        first, later = render(make_report(first=True)), render(make_report())
        assert "This is the first report" in first
        assert "This is the first report" not in later
        for shown in (
            "What changed since the report of 2026-01-01",
            "Cause plain.",
            "rank correlation, plain",
            "0.987",
            "kept plain",
            "plain.jsonl:7",
            "ab" * 16,
            "1 shard, lost plain",
        ):
            assert shown in later, shown
            assert shown not in first, shown


def test_the_encoders_standing_is_shown_beside_the_comparison(make_report):
    for render in (render_html, lambda report: page_of_markdown(render_markdown(report)).text):
        shown = render(make_report())
        for text in (
            "1 of 3 shards new, 1 changed, 2 of 9 queries new",
            "influcoder redistill",
            "Fidelity by shard, worst first",
            "shard plain",
            "Table plain",
        ):
            assert text in shown, text


def test_groups_have_their_table_in_both_and_markdown_leaves_a_lone_group_out(make_report):
    report = make_report()
    html, markdown = render_html(report), render_markdown(report)
    for heading in ("characters of the response", "script of most letters", "By source (1)"):
        assert heading in html
    assert "| label | kept" in markdown
    assert "script of most letters" not in markdown
    mixed = dataclasses.replace(report, by_script=report.by_label)
    assert "| script of most letters | kept" in render_markdown(mixed)
