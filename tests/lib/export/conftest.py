"""A small filtered corpus, and a way to export it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from influcoder_lib.export.dataset import Exported, export_dataset
from influcoder_lib.store import Store
from tests.lib.export.stored import Stored, Text

NASTY = '\ufeffline\r\nline\u2028\x85\t"quoted" \\ {} é 𝔘 <b>&amp; | `x` \u202e \x01 \x7f'
CORPUS = {
    "a.jsonl": [
        Text("hello", "hi"),
        Text("", NASTY),
        Text("insult me", "no", dropped=True),
    ],
    "b.csv": [
        Text(NASTY, "null", "kind", "forum"),
        Text("tell me", "you fool", "rude", "forum", dropped=True),
        Text("tell me more", "you fool", "rude", "chat", dropped=True),
    ],
    "dropped.whole": [Text("why", "idiot", "rude", "chat", dropped=True)],
    "kept.whole": [Text("who", "me", "kind", "chat")],
    "none.jsonl": [],
}
"""Shards with a missing label, with nothing kept, nothing dropped, and nothing at all."""


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """The corpus of CORPUS, filtered, by one encoder and one rule."""
    found = Stored(Store(tmp_path / "data"))
    found.judge()
    for name, texts in CORPUS.items():
        found.shard(name, texts, quarantined=2 if name == "a.jsonl" else 0)
    return found


@pytest.fixture
def export(stored: Stored, tmp_path: Path) -> Callable[..., tuple[Path, Exported]]:
    """Exports the stored shards into a new folder."""

    def run(
        form="parquet", shards=tuple(CORPUS), out_of_date=0, failed=(), licences=None, name="out"
    ):
        folder = tmp_path / name
        exported = export_dataset(
            stored.store,
            shards,
            folder,
            form,
            out_of_date=out_of_date,
            failed=failed,
            licences=licences or {},
        )
        return folder, exported

    return run
