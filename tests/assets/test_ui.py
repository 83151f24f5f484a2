"""The UI in a real browser: a fresh home is materialised without the command line."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from influcoder_assets.maker import current_plan
from influcoder_assets.workspace import Workspace

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(280),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium"),
]
LAUNCHPAD = "/locations/influcoder_assets.definitions/jobs/refresh/playground"


@pytest.fixture
def address(new_home: Path) -> Iterator[str]:
    """Address of the UI on a fresh home, as `make ui` starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "influcoder_assets.cli", "ui", "--home", str(new_home)]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/server_info", seconds=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


def test_a_fresh_home_is_materialised_by_one_click(
    new_home: Path, address: str, page: Page
) -> None:
    assert current_plan(Workspace.open(new_home))
    page.goto(address + LAUNCHPAD)
    page.get_by_role("button", name="Launch run").click(timeout=60_000)
    page.wait_for_url("**/runs/*", timeout=60_000)
    page.get_by_text("Success", exact=True).first.wait_for(timeout=180_000)
    assert current_plan(Workspace.open(new_home)) == []

    page.goto(f"{address}/assets/curation_report")
    page.get_by_text("[Show Markdown]").first.click(timeout=60_000)
    pictures = page.locator("img[src^='data:image/png;base64,']")
    pictures.first.wait_for(timeout=30_000)
    assert pictures.count() >= 2


def _wait_for(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(url)
