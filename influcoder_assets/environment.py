"""What libraries read from the environment of a process, so that it has to be there before they are
imported or used."""

import os
from collections.abc import Mapping
from pathlib import Path

_SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Dagster and Ray fork, and a tokenizer's threads are not in the copy, which would wait for them.
_FORKED = {"TOKENIZERS_PARALLELISM": "false"}
_COMMANDED = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    # torch's CPU kernels are kept for every shape of batch that ever came; this bounds them.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}


def of_home(home: Path) -> dict[str, str]:
    """Variables of a command that works on a home, and of the processes that it starts: no
    telemetry, no foreign progress bars, bounded memory. They hold whatever was set before."""
    return {"DAGSTER_HOME": str(home), **_SILENT, **_FORKED, **_COMMANDED}


def silence() -> None:
    """Before MLflow or Ray is imported: no telemetry, no progress bars of their own. A value that
    somebody has set stays."""
    _default(_SILENT)


def expect_forks() -> None:
    """Before a tokenizer is used in a process of Dagster or Ray: it starts no threads, unless
    somebody has set that it does."""
    _default(_FORKED)


def _default(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)
