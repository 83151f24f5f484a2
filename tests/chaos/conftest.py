"""How much each suite here goes through: `short` with the other tests, `full` by `make chaos`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.assets import tiny_home
from tests.chaos.undisturbed import Undisturbed


@dataclass(frozen=True)
class Amount:
    """Kills of a run, malformed files, random changes to a home, and restarts of servers."""

    kills: int
    files: int
    changes: int
    restarts: int


_AMOUNTS = {
    "short": Amount(kills=3, files=60, changes=12, restarts=0),
    "full": Amount(kills=60, files=300, changes=500, restarts=4),
}


@pytest.fixture(scope="session")
def amount(request: pytest.FixtureRequest) -> Amount:
    return _AMOUNTS[request.config.getoption("--chaos")]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed.below(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def home(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A copy of a home that is up to date, to be harmed."""
    return tiny_home.copy_home(undisturbed.home, tmp_path / "home")


@pytest.fixture
def new_home(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A home before its first refresh, to be harmed."""
    return tiny_home.copy_home(undisturbed.pristine, tmp_path / "home")


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells how far a long suite is, whether or not output is captured."""

    def tell(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    return tell
