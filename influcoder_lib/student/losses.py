"""Losses between a block of the student's cosines and the same block of the teacher's influences.

`S` is the student's, `T` the teacher's, both (k, m): k queries by m candidates. Formulas:
METHOD.md §3, the reference recipe. Every loss is a scalar tensor, differentiable in `S`.
"""

import torch
from torch import Tensor


def pearson_loss(S: Tensor, T: Tensor) -> Tensor:  # noqa: N803
    """1 − Pearson correlation over all entries of the block: 0 best, 2 worst.

    A constant block (up to rounding), on either side, has no correlation: it counts as 0, so the
    loss is 1 and its gradient zero.
    """
    if _is_constant(S) or _is_constant(T):
        return 1.0 + 0.0 * S.sum()
    s, t = S - S.mean(), T - T.mean()
    return 1.0 - (s * t).sum() / (s.norm() * t.norm())


def listwise_loss(S: Tensor, T: Tensor, temperature: float) -> Tensor:  # noqa: N803
    """Mean over rows of KL(softmax(T/τ) ‖ softmax(S/τ)) in nats: 0 best.

    A constant row is the uniform distribution; a block of one candidate has loss 0.
    """
    teacher = torch.log_softmax(T / temperature, dim=1)
    student = torch.log_softmax(S / temperature, dim=1)
    return torch.nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def reference_loss(S: Tensor, T: Tensor, alpha: float, temperature: float) -> Tensor:  # noqa: N803
    """The published loss: α · `pearson_loss` + (1 − α) · `listwise_loss`."""
    return alpha * pearson_loss(S, T) + (1.0 - alpha) * listwise_loss(S, T, temperature)


def _is_constant(block: Tensor) -> bool:
    rounding = 8 * torch.finfo(block.dtype).eps * block.detach().abs().max()
    return bool(block.detach().max() - block.detach().min() <= rounding)
