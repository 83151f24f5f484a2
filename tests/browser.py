"""A real browser for the tests that look at pages, and what a page must not be made to do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium"),
]
# Each runs `hit`, or asks for ELSEWHERE, if it is taken for anything but text.
ELSEWHERE = "http://127.0.0.1:9/"
HOSTILE = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    "<svg/onload=hit()>",
    "\"><body onload='hit()'>",
    "' onmouseover='hit()' autofocus onfocus='hit()",
    "</style></title></textarea></script><script>hit()</script>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "<details open ontoggle=hit()>",
    f"<link rel=stylesheet href={ELSEWHERE}><img src={ELSEWHERE}>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"![x]({ELSEWHERE}) [x](javascript:hit()) <{ELSEWHERE}>",
)


@contextmanager
def opened_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


@dataclass
class Watched:
    """A page, and what HOSTILE text made it do: nothing, if all is well."""

    page: Page
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.expose_function("hit", lambda: self.done.append("ran"))
        self.page.on("dialog", lambda dialog: self.done.append(dialog.message))
        self.page.on("request", self._note)

    def _note(self, request: object) -> None:
        url = str(request.url)  # type: ignore[attr-defined]
        if url.startswith(ELSEWHERE):
            self.done.append(url)

    def touch_everything(self) -> None:
        """Move over, and open, whatever there is."""
        self.page.evaluate(
            """() => document.querySelectorAll('*').forEach(each => {
                 if (each.tagName === 'DETAILS') each.open = true;
                 for (const kind of ['mouseover', 'focus', 'toggle'])
                   each.dispatchEvent(new Event(kind, {bubbles: true}));
               })"""
        )
        self.page.wait_for_timeout(500)
