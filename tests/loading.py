"""Loading an exported dataset as its users do, without any network."""

import socket
from pathlib import Path
from typing import Any

import pytest


def load(folder: Path, cache: Path, part: str = "default") -> list[dict[str, Any]]:
    """The rows that `datasets.load_dataset` finds in a part, without leaving this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setattr(socket.socket, "connect", _refuse)
        import datasets

        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        found = datasets.load_dataset(str(folder), part, split="train", cache_dir=str(cache))
        return found.to_list()


def _refuse(*_: Any) -> None:
    raise AssertionError("the network was asked")
