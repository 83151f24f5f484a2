"""Which queries and which candidates each training step sees; seeded, and free of any model."""

from collections.abc import Iterator

import numpy as np
import torch

# Hard candidates are drawn from this share of the candidates, those of highest influence.
_HARD_POOL = 0.125


def cycle(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless draws of `size` distinct rows of `count`, from one permutation after another.

    Every row is used once before any is used again, except that a draw which runs into the next
    permutation takes from it rows that it does not have yet. `size` above `count` means all.
    """
    size = min(size, count)
    waiting: list[int] = []
    while True:
        if len(waiting) < size:
            fresh = torch.randperm(count, generator=generator).tolist()
            held = set(waiting)
            waiting += [row for row in fresh if row not in held] + [r for r in fresh if r in held]
        yield waiting[:size]
        waiting = waiting[size:]


def hard_candidates(
    influence: np.ndarray, taken: list[int], size: int, generator: torch.Generator
) -> list[int]:
    """Draw `size` candidates that a step's queries rank highest and that are not `taken`.

    `influence` (k, N) float32 holds the step's queries. A candidate's hardness is its highest
    influence on any of them; the draw is uniform over the hardest eighth (at least `size`) of those
    free.
    """
    hardness = influence.max(axis=0).astype(np.float64)
    hardness[taken] = -np.inf
    free = influence.shape[1] - len(taken)
    pool = min(max(size, round(_HARD_POOL * influence.shape[1])), free)
    hardest = np.argsort(-hardness, kind="stable")[:pool]
    drawn = torch.randperm(pool, generator=generator)[:size].numpy()
    return [int(row) for row in hardest[drawn]]


def steps(
    influence: np.ndarray,
    queries_per_step: int,
    candidates_per_step: int,
    hard_share: float,
    generator: torch.Generator,
) -> Iterator[tuple[list[int], list[int]]]:
    """Endless (query rows, candidate rows) of the training steps for an influence matrix (Q, N).

    `round(hard_share · m)` of a step's m candidates, but not all, are hard ones for its queries;
    the other candidates, and the queries, come from `cycle`.
    """
    queries, candidates = influence.shape
    size = min(candidates_per_step, candidates)
    hard = min(round(hard_share * size), size - 1)
    query_draws = cycle(queries, queries_per_step, generator)
    plain_draws = cycle(candidates, size - hard, generator)
    while True:
        rows, columns = next(query_draws), next(plain_draws)
        if hard:
            columns = columns + hard_candidates(influence[rows], columns, hard, generator)
        yield rows, columns
