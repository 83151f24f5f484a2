"""What holds for every test: hypothesis draws the same examples on every run, at any speed; how
many workers there are; and how much the suites in `chaos` do is said once, on the command line."""

import os
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


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time a worker waits for a process of its own or
    for a disk."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (own or 1) + 1


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3.server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Place:
    """A location that nothing was published at yet."""
    return s3.new_bucket(s3_url)
