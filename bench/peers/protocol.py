"""How a bench talks to a contender in another process: JSON lines, and the clock is on that side.

So loading a model is never timed, peak memory is one contender's alone, and a contender may live in
an environment that has nothing of this project but these files.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influcoder_lib import memory

_ROOT = Path(__file__).resolve().parents[2]
_CALM = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Row:
    """A sample as text and as tokens of the target model; the loss covers `ids[loss_start:]`."""

    prompt: str
    response: str
    ids: list[int]
    loss_start: int


@dataclass(frozen=True)
class Answer:
    """Seconds that the features took, and the process's peak memory in MiB so far.

    On a GPU the memory is the GPU's.
    """

    seconds: float
    peak: float


# Features of unit length, (rows, D); None from a contender that keeps none.
Compute = Callable[[list[Row]], np.ndarray | None]


class Contender:
    """A running worker; ends with the `with` block."""

    def __init__(self, python: str, module: str, options: dict[str, Any]) -> None:
        # Not through standard output: libraries print there.
        reader, writer = os.pipe()
        self._answers = os.fdopen(reader)
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", module, str(writer), json.dumps(options)],
            cwd=_ROOT,
            env={**os.environ, **_CALM},
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            pass_fds=[writer],
            text=True,
        )
        os.close(writer)
        self._answer()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()

    def compute(self, rows: Sequence[Row], save: Path | None = None) -> Answer:
        """Have features of the rows computed, and written to a .npy file if one is named."""
        assert self._process.stdin
        request = {"rows": [asdict(row) for row in rows], "save": str(save) if save else None}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Answer(**self._answer())

    def _answer(self) -> dict[str, float]:
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with exit code {self._process.wait()}")
        return json.loads(line)


def serve(prepare: Callable[[dict[str, Any]], Compute]) -> None:
    """The worker's side: prepare once, with the options, then answer until the input ends."""
    channel = os.fdopen(int(sys.argv[1]), "w")
    compute = prepare(json.loads(sys.argv[2]))
    print("{}", file=channel, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        rows = [Row(**row) for row in request["rows"]]
        begin = time.perf_counter()
        features = compute(rows)
        answer = Answer(time.perf_counter() - begin, _peak())
        if request["save"] and features is not None:
            np.save(request["save"], features)
        print(json.dumps(asdict(answer)), file=channel, flush=True)


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory.peak() / 2**20
