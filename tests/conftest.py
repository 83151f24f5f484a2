"""What holds for every test: hypothesis draws the same examples on every run, at any speed; and
how much the suites in `chaos` do is said once, on the command line."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import s3
from tests.s3 import Place

settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos",
        choices=("short", "full"),
        default="short",
        help="how many kills, malformed files and changes the suites in tests/chaos go through",
    )


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3.server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Place:
    """A location that nothing was published at yet."""
    return s3.new_bucket(s3_url)
