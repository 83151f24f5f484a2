"""Learning rates: where they rise, where they fall, and that a training of any length has them."""

import pytest
import torch

from influcoder_lib.schedule import warmup_then_decay


def rates(steps: int, warmup_share: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = warmup_then_decay(optimizer, steps, warmup_share)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_over_its_share_of_the_steps_and_falls_over_the_others():
    assert rates(6, 1 / 3) == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4])


@pytest.mark.parametrize(("steps", "warmup_share"), [(1, 0.0), (1, 0.9), (8, 0.95), (3, 0.5)])
def test_no_step_of_the_shortest_training_has_a_rate_of_zero(steps, warmup_share):
    found = rates(steps, warmup_share)
    assert len(found) == steps
    assert all(0 < rate <= 1 for rate in found)
