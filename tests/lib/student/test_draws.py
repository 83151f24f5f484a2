"""Which rows the training steps see: every row in turn, hard ones for the step's queries."""

from collections import Counter
from itertools import islice

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.student.draws import cycle, hard_candidates, steps


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 5), st.integers(1, 12))
def test_draws_are_distinct_and_even(count: int, size: int, seed: int, draws: int) -> None:
    drawn = list(islice(cycle(count, size, seeded(seed)), draws))
    assert all(len(set(rows)) == len(rows) == min(size, count) for rows in drawn)
    times = Counter(row for rows in drawn for row in rows)
    assert max(times.values()) - min(times[row] for row in range(count)) <= 1


def test_the_seed_decides_the_draws() -> None:
    first, again, other = (list(islice(cycle(30, 4, seeded(s)), 5)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_hard_candidates_are_those_of_highest_influence_on_any_query() -> None:
    influence = np.zeros((2, 32), dtype=np.float32)
    influence[0, 7], influence[1, 19], influence[0, 3], influence[1, 30] = 0.9, 0.8, 0.7, 0.6
    assert set(hard_candidates(influence, [], 4, seeded())) == {7, 19, 3, 30}


def test_hard_candidates_leave_out_what_is_taken() -> None:
    influence = np.arange(32, dtype=np.float32)[None]
    drawn = {row for s in range(20) for row in hard_candidates(influence, [31, 29], 2, seeded(s))}
    assert drawn == {30, 28, 27, 26}


def test_a_step_mixes_plain_and_hard_candidates_without_repeats() -> None:
    influence = np.tile(np.arange(64, dtype=np.float32), (5, 1))
    for rows, columns in islice(steps(influence, 2, 8, 0.5, seeded()), 30):
        assert len(rows) == 2
        assert len(set(columns)) == 8
        assert min(columns[4:]) >= 64 - 8 - 4  # the hardest eighth of those not taken


@given(st.floats(0.9, 1, exclude_max=True), st.integers(2, 16))
def test_a_step_never_has_hard_candidates_alone(share: float, size: int) -> None:
    influence = np.tile(np.arange(64, dtype=np.float32), (5, 1))
    seen = {row for _, own in islice(steps(influence, 2, size, share, seeded()), 64) for row in own}
    assert len(seen) == 64


def test_no_hard_share_takes_all_candidates_in_turn() -> None:
    influence = np.zeros((3, 12), dtype=np.float32)
    seen = [
        row for _, columns in islice(steps(influence, 8, 4, 0.0, seeded()), 3) for row in columns
    ]
    assert sorted(seen) == list(range(12))


def test_small_sets_give_small_steps() -> None:
    rows, columns = next(steps(np.zeros((3, 5), dtype=np.float32), 8, 16, 0.5, seeded()))
    assert sorted(rows) == [0, 1, 2]
    assert sorted(columns) == [0, 1, 2, 3, 4]
