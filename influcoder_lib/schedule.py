"""Learning rates over a training, of an adapter or of an encoder."""

import torch


def rising_then_falling(
    optimizer: torch.optim.Optimizer, steps: int, rising: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Rises linearly over this share of the steps, then falls linearly; no step has a rate of
    exactly 0, be it the only one."""
    first = round(rising * steps)

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / (first + 1)
        return max(steps - step, 0) / max(steps - first, 1)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
