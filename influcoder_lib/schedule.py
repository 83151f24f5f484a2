"""Learning rates over a training, of an adapter or of an encoder."""

import torch


def warmup_then_decay(
    optimizer: torch.optim.Optimizer, steps: int, warmup_share: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Rises linearly over the warm-up, this share of the steps, then decays linearly; no step has a
    rate of exactly 0, be it the only one."""
    warmup_steps = round(warmup_share * steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return max(steps - step, 0) / max(steps - warmup_steps, 1)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
