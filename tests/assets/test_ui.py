"""The UI in a real browser: everything that a user does there, without the command line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from influcoder_assets.maker import current_plan
from influcoder_assets.workspace import Workspace
from influcoder_lib.store import Manifest
from tests import services
from tests.assets import tiny_home
from tests.assets.changes import NEW_ROW
from tests.assets.conftest import Done
from tests.browser import HOSTILE, NEEDS_CHROMIUM, Watched, opened_page

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.timeout(600)]
LOCATION = "/locations/influcoder_assets.definitions"
SOON, LATER = 60_000, 180_000
expect.set_options(timeout=SOON)


@dataclass(frozen=True)
class Served:
    """A home, and the address of the UI on it."""

    home: Path
    address: str

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.home)


@contextmanager
def serving(home: Path) -> Iterator[Served]:
    """The UI on a home, as `make ui` starts it."""
    port = services.free_port()
    with services.server(*services.dagster(home, port), services.stop):
        yield Served(home, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def served(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The UI on a home that was refreshed once; each test changes something else in it."""
    home = tiny_home.copy_home(done.home, tmp_path_factory.mktemp("served") / "home")
    with serving(home) as found:
        yield found


@pytest.fixture
def page() -> Iterator[Page]:
    with opened_page() as opened:
        opened.set_default_timeout(SOON)
        yield opened


def test_a_fresh_home_is_materialised_by_one_click(new_home: Path, page: Page) -> None:
    with serving(new_home) as fresh:
        assert current_plan(fresh.workspace)
        page.goto(f"{fresh.address}{LOCATION}/jobs/refresh/playground")
        page.get_by_role("button", name="Launch run").click()
        page.wait_for_url("**/runs/*")
        page.get_by_text("Success", exact=True).first.wait_for(timeout=LATER)
        assert current_plan(fresh.workspace) == []


def test_the_asset_graph_shows_every_group_and_its_assets(served: Served, page: Page) -> None:
    page.goto(f"{served.address}/asset-groups")
    for group in ("corpus", "teacher", "encoder", "curation", "refresh"):
        _shown(page, group).first.wait_for()
    # A click on a group opens it around its middle; what lies outside the window is not drawn.
    _shown(page, "curation").last.click()
    _shown(page, "decision_rule").first.wait_for()


def test_the_pictures_of_the_report_are_in_its_metadata(served: Served, page: Page) -> None:
    page.goto(f"{served.address}/assets/curation_report")
    page.get_by_text("[Show Markdown]").first.click()
    pictures = page.locator("img[src^='data:image/png;base64,']")
    pictures.first.wait_for()
    assert pictures.count() >= 2


@pytest.fixture
def hostile(served: Served) -> Served:
    """The served home, with hostile rows, labels and quarantined rows in it."""
    everything = " ".join(HOSTILE)
    row = {"prompt": everything, "response": everything, "label": everything}
    corpus = served.home / "corpus"
    tiny_home.write_rows(corpus / "hostile.jsonl", [*tiny_home.rows("hostile"), row])
    (corpus / "quarantined.jsonl").write_text(f'{{"prompt": {everything}')
    assert tiny_home.refresh(served.home).failures == []
    return served


def test_hostile_text_does_nothing_in_the_ui(hostile: Served, page: Page) -> None:
    watched = Watched(page)
    page.goto(f"{hostile.address}/assets/corpus?view=partitions&partition=hostile.jsonl")
    _shown(page, "hostile.jsonl").first.wait_for()
    watched.touch_everything()
    page.goto(f"{hostile.address}/assets/curation_report")
    page.get_by_text("[Show Markdown]").first.click()
    page.locator("img[src^='data:image/png;base64,']").first.wait_for()
    watched.touch_everything()
    shown = (page.text_content("body") or "").replace("\u2060", "")
    assert "<script>hit()</script>" in shown
    assert watched.done == []


def test_one_shard_is_materialised_by_hand(served: Served, page: Page) -> None:
    def made() -> Manifest:
        return served.workspace.store.require("corpus", "c.parquet")

    before = made()
    page.goto(f"{served.address}/assets/corpus?view=partitions&partition=c.parquet")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Launch 1 run").click()
    _reload_until(page, lambda: made().number > before.number, seconds=240)
    page.goto(f"{served.address}/runs/{made().run_id}")
    _shown(page, "Success").first.wait_for()
    assert (made().number, made().fingerprint) == (before.number + 1, before.fingerprint)


def test_the_plan_is_there_to_read(served: Served, page: Page) -> None:
    tiny_home.append_row(served.home / "corpus" / "a.jsonl", NEW_ROW)
    page.goto(f"{served.address}/assets/refresh_plan")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("shard changed").first.wait_for(timeout=LATER)
    row = page.get_by_role("row").filter(has_text="shard changed").last
    expect(row).to_contain_text("a.jsonl")


def test_the_sensor_sees_a_file_that_is_dropped_in(served: Served, page: Page) -> None:
    page.goto(f"{served.address}{LOCATION}/sensors/refresh_sensor")
    switch = page.locator("input[type=checkbox]").first
    expect(switch).not_to_be_checked()
    switch.dispatch_event("click")
    expect(switch).to_be_checked()
    tiny_home.write_rows(served.home / "corpus" / "dropped_in.jsonl", tiny_home.rows("new"))
    page.goto(f"{served.address}/assets/filtered_dataset?view=partitions")
    partition = _shown(page, "dropped_in.jsonl").first
    _reload_until(page, lambda: partition.is_visible(), seconds=240)
    _reload_until(page, lambda: current_plan(served.workspace) == [], seconds=240)
    partition.click()
    page.get_by_text("rows_in", exact=True).first.wait_for()
    assert served.workspace.store.require("filtered_dataset", "dropped_in.jsonl").rows
    page.goto(f"{served.address}{LOCATION}/sensors/refresh_sensor")
    switch.dispatch_event("click")
    expect(switch).not_to_be_checked()


def _shown(page: Page, text: str) -> Locator:
    """Elements with this text that can be seen: beside each stands a hidden one to measure it."""
    return page.get_by_text(text, exact=True).filter(visible=True)


def _reload_until(page: Page, is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(page.url)
        page.wait_for_timeout(3000)
        page.reload()
        page.wait_for_timeout(2000)
