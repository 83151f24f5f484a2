"""Batches within a budget of tokens, and what happens when one does not fit into memory."""

import itertools
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.budget import TokenBudget, batches, reordered
from influcoder_lib.errors import ModelError

OUT_OF_MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_budget_longest_first(lengths, budget):
    groups = [rows.tolist() for rows in batches(lengths, budget)]
    order = [index for group in groups for index in group]
    assert sorted(order) == list(range(len(lengths)))
    assert order == sorted(order, key=lambda index: -lengths[index])
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= budget
    for group, following in itertools.pairwise(groups):
        grown = (len(group) + 1) * max(lengths[index] for index in [*group, following[0]])
        assert grown > budget, "a batch was closed while the next row still fitted"


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own():
    assert [rows.tolist() for rows in batches([3, 50, 4], 10)] == [[1], [2, 0]]


class Memory:
    """Stands for a machine on which a batch of more tokens than these does not fit."""

    def __init__(self, lengths: list[int], tokens: int, error: Exception) -> None:
        self.lengths, self.tokens, self.error = lengths, tokens, error
        self.failed: list[int] = []

    def run(self, rows: np.ndarray) -> list[int]:
        needed = len(rows) * max(self.lengths[row] for row in rows)
        if needed > self.tokens:
            self.failed.append(needed)
            raise self.error
        return rows.tolist()


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=40),
    st.integers(1, 500),
    st.integers(40, 200),
    st.sampled_from(OUT_OF_MEMORY),
)
def test_every_row_is_computed_once_however_little_memory_there_is(lengths, tokens, room, error):
    budget, machine = TokenBudget(tokens, "a.window"), Memory(lengths, room, error)
    done = list(budget.spend(lengths, machine.run, str))
    assert sorted(itertools.chain(*done)) == list(range(len(lengths)))
    assert all(after <= before // 2 for before, after in itertools.pairwise(machine.failed))
    assert budget.tokens == (machine.failed[-1] // 2 if machine.failed else tokens)


def test_what_did_not_fit_is_remembered_and_said(caplog: pytest.LogCaptureFixture) -> None:
    lengths = [10] * 16
    budget, machine = TokenBudget(160, "a.window"), Memory(lengths, 50, MemoryError())
    with caplog.at_level(logging.WARNING, "influcoder_lib"):
        assert [len(rows) for rows in budget.spend(lengths, machine.run, str)] == [4] * 4
    assert machine.failed == [160, 80]
    assert caplog.messages[-1] == (
        "80 tokens at once did not fit into memory: from now on at most 40 are taken"
    )
    assert len(list(budget.spend(lengths, machine.run, str))) == 4
    assert machine.failed == [160, 80]


def test_a_sample_that_does_not_fit_alone_is_named_with_its_tokens_and_the_setting() -> None:
    lengths = [10, 70, 20]
    machine = Memory(lengths, 50, MemoryError())
    with pytest.raises(ModelError) as caught:
        list(TokenBudget(1000, "a.window").spend(lengths, machine.run, "sample {}".format))
    assert "not enough memory for 70 tokens" in caught.value.problem
    assert caught.value.where == "sample 1"
    assert "lower a.window" in caught.value.fix


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    machine = Memory([10, 10], 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(TokenBudget(20, "a.window").spend([10, 10], machine.run, str))
    assert machine.failed == [20]


REAL = """
import resource
import torch
from influcoder_lib.budget import TokenBudget

def run(rows):
    return len(rows), float(torch.ones(len(rows) * 2**20, 16).sum())

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, -1))
budget = TokenBudget(64, "a.window")
print(list(budget.spend([1] * 64, run, str)), budget.tokens)
"""


def test_what_the_allocator_really_says_is_understood() -> None:
    """A gigabyte is left; a row takes 64 MiB, so that 64 of them are four times too many."""
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout.split()[-1] in ("8", "16")
    assert "64 tokens at once did not fit into memory" in done.stderr


def test_blocks_come_back_in_the_order_of_their_rows():
    values = torch.arange(12.0).reshape(6, 2)
    taken = list(batches([3, 1, 5, 1, 4, 1], 5))
    assert len(taken) > 1
    torch.testing.assert_close(reordered(taken, (values[rows] for rows in taken)), values)
