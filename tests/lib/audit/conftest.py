"""A store with the hand-made chain of artifacts, after one run and before any."""

from pathlib import Path

import pytest

from influcoder_lib import store as store_module
from influcoder_lib import timestamps
from influcoder_lib.store import Store
from tests.lib.audit.chain import Chain


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Nothing is made yet."""
    made = Chain(Store(tmp_path / "data"))
    monkeypatch.setattr(timestamps, "now", lambda: made.now)
    monkeypatch.setattr(store_module, "flush", lambda path: None)
    return made


@pytest.fixture
def ran(chain: Chain) -> Chain:
    """Two shards of twelve samples, decided on by one run."""
    chain.run()
    return chain
