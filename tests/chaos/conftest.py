"""How much each suite here goes through: `short` with the other tests, `full` by `make chaos`."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Amount:
    """Kills of a run, malformed files, and random changes to a home."""

    kills: int
    files: int
    changes: int


_AMOUNTS = {
    "short": Amount(kills=3, files=60, changes=12),
    "full": Amount(kills=60, files=300, changes=500),
}


@pytest.fixture(scope="session")
def amount(request: pytest.FixtureRequest) -> Amount:
    return _AMOUNTS[request.config.getoption("--chaos")]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells how far a long suite is, whether or not output is captured."""

    def tell(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    return tell
