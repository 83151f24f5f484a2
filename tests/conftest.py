"""What holds for every test: hypothesis draws the same examples on every run, at any speed; and
how much the suites in `chaos` do is said once, on the command line."""

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos",
        choices=("short", "full"),
        default="short",
        help="how many kills, malformed files and changes the suites in tests/chaos go through",
    )
