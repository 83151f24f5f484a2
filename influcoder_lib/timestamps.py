"""Times as they are stored and shown: UTC, ISO 8601, in whole seconds, so that their texts sort as
they do."""

import time


def of(seconds: float) -> str:
    """The time that is so many seconds after the epoch, such as 2026-11-27T08:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def now() -> str:
    """The time now."""
    return of(time.time())
