"""Times are UTC, ISO 8601, in whole seconds."""

from datetime import UTC, datetime

import pytest

from influcoder_lib import timestamps


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "1970-01-01T00:00:00Z"), (1_795_766_400.9, "2026-11-27T08:00:00Z")],
)
def test_a_time_is_written_in_whole_seconds_of_utc(seconds, written):
    assert timestamps.of(seconds) == written


def test_now_is_now():
    since = datetime.now(UTC) - datetime.fromisoformat(timestamps.now())
    assert 0 <= since.total_seconds() < 60
