"""Libraries find what they need in the environment, and what somebody else has set."""

import os

import pytest

from influcoder_assets import environment

VARIABLES = ("MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "TOKENIZERS_PARALLELISM")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        # Set first, so that what the test makes of it is undone even where it was not set.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_libraries_send_nothing_and_tokenizers_may_be_forked(clean: pytest.MonkeyPatch):
    environment.silence()
    environment.expect_forks()
    assert [os.environ[name] for name in VARIABLES] == ["true", "0", "false"]


def test_a_value_that_is_set_stays(clean: pytest.MonkeyPatch):
    clean.setenv("RAY_USAGE_STATS_ENABLED", "1")
    environment.silence()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
