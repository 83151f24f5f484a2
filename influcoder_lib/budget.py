"""Batches bounded in tokens, and what is done about one that does not fit into memory."""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from influcoder_lib import memory
from influcoder_lib.errors import ModelError

log = logging.getLogger("influcoder_lib")

Result = TypeVar("Result")

# What else torch says on a CPU, CUDA where another process holds the memory, and cuBLAS.
_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def batches(lengths: Sequence[int] | np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Rows (n,) of each batch, longest first, of N rows with these lengths in tokens.

    A batch's rows times its longest one is at most `tokens`, unless one row alone is longer. Equal
    lengths keep their order.
    """
    order, start = _longest_first(lengths), 0
    while start < len(order):
        rows = _first(order[start:], lengths, tokens)
        start += len(rows)
        yield rows


def reordered(rows: Iterable[np.ndarray], blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """What batches gave, put together again: tensor (N, ...) of blocks (n, ...), on their device,
    with the rows (n,) int64 of each, which together are 0 to N - 1."""
    together = torch.cat(list(blocks))
    back = np.argsort(np.concatenate(list(rows)), kind="stable")
    return together[torch.from_numpy(back).to(together.device)]


class TokenBudget:
    """The tokens that one batch may have, padding included; halved, for good, whenever a batch does
    not fit into memory.

    Args:
        tokens: how many at first.
        setting: what a user lowers where one sample alone does not fit.
    """

    def __init__(self, tokens: int, setting: str) -> None:
        self.tokens = tokens
        self.setting = setting

    def spend(
        self,
        lengths: Sequence[int] | np.ndarray,
        run: Callable[[np.ndarray], Result],
        name: Callable[[int], str],
    ) -> Iterator[Result]:
        """What `run` gives for the rows of each of `batches`; those of one that does not fit are
        run again in smaller ones, as are all after it. `name` says which sample a row is.

        Raises:
            ModelError: a sample does not fit into memory, even alone.
        """
        order, start = _longest_first(lengths), 0
        while start < len(order):
            rows = _first(order[start:], lengths, self.tokens)
            results = _attempt(run, rows)
            if not results:
                self._halve(len(rows), int(lengths[rows[0]]), name(int(rows[0])))
                continue
            start += len(rows)
            yield results.pop()

    def _halve(self, rows: int, longest: int, name: str) -> None:
        if rows == 1:
            raise ModelError(
                f"There is not enough memory for {longest} tokens, a batch of one sample.",
                where=name,
                fix=f"lower {self.setting}, or use a smaller model or a machine with more memory",
            )
        self.tokens = rows * longest // 2
        log.warning(
            "%d tokens at once did not fit into memory: from now on at most %d are taken",
            rows * longest,
            self.tokens,
        )


def _longest_first(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")


def _first(order: np.ndarray, lengths: Sequence[int] | np.ndarray, tokens: int) -> np.ndarray:
    longest = max(int(lengths[order[0]]), 1)
    return order[: max(tokens // longest, 1)]


def _attempt(run: Callable[[np.ndarray], Result], rows: np.ndarray) -> list[Result]:
    """The one result; none where it ran out of memory, and then what it had taken is given back."""
    try:
        return [run(rows)]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    # Not before the error is gone, and with it the frames that hold the batch's tensors.
    gc.collect()
    memory.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return []


def _is_out_of_memory(error: Exception) -> bool:
    told = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return told or any(words in str(error) for words in _NO_MEMORY)
