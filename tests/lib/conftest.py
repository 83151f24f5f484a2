"""A target model's folder, for every test that only looks at one, and copies to be changed."""

import shutil
from pathlib import Path

import pytest

from tests.tiny import tiny_target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny target model; tests do not change it."""
    return tiny_target(tmp_path_factory.mktemp("target"), "llama")


@pytest.fixture
def copy(target: Path, tmp_path: Path) -> Path:
    """The same, of the test's own, in its `tmp_path`."""
    return shutil.copytree(target, tmp_path / "copy")
