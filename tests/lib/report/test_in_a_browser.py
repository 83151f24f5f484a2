"""The report as a browser shows it: hostile text is read, and does nothing."""

import pytest

from influcoder_lib.report.html import render_html
from tests.browser import HOSTILE, NEEDS_CHROMIUM, Watched, opened_page

pytestmark = NEEDS_CHROMIUM


@pytest.mark.parametrize("is_escaped", [True, False])
def test_hostile_text_does_nothing_in_the_report(make_report, tmp_path, is_escaped):
    """Where it is not escaped, the browser does do what it says: so the test can fail."""
    path = tmp_path / "report.html"
    # What runs again and again, or leaves, keeps a page from ever being loaded.
    lasting = () if is_escaped else ("<iframe", "<body", "refresh")
    everything = " ".join(each for each in HOSTILE if not any(kind in each for kind in lasting))
    html = render_html(make_report(everything, ("toxic", everything)))
    path.write_text(html if is_escaped else html.replace("&lt;", "<").replace("&gt;", ">"))
    with opened_page() as page:
        watched = Watched(page)
        page.goto(path.as_uri())
        watched.touch_everything()
        if is_escaped:
            shown = page.text_content("body")
            assert all(each in shown for each in HOSTILE)
            assert page.locator("script, iframe, a[href^=javascript]").count() == 0
        assert (watched.done == []) == is_escaped
