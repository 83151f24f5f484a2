"""What libraries read from the environment of a process, so that it has to be there before they are
imported or used. A value that somebody else has set stays."""

import os
from collections.abc import Mapping

_SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Dagster and Ray fork, and a tokenizer's threads are not in the copy, which would wait for them.
_FORKED = {"TOKENIZERS_PARALLELISM": "false"}


def silence() -> None:
    """Before MLflow or Ray is imported: no telemetry, no progress bars of their own."""
    _default(_SILENT)


def expect_forks() -> None:
    """Before a tokenizer is used in a process of Dagster or Ray: it starts no threads."""
    _default(_FORKED)


def _default(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)
