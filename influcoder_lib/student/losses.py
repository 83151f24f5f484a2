"""Losses between a block of the student's cosines and the same block of the teacher's influences.

`student` and `teacher` are (k, m) float blocks, k queries by m candidates. Formulas: Influcoder,
arXiv 2606.13668. Every loss is a scalar tensor, differentiable in `student`.
"""

import torch
from torch import Tensor


def pearson_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − Pearson correlation over all entries of the block: 0 best, 2 worst.

    A constant block (up to rounding), on either side, has no correlation: it counts as 0, so the
    loss is 1 and its gradient zero.
    """
    if _is_constant(student) or _is_constant(teacher):
        return 1.0 + 0.0 * student.sum()
    s, t = student - student.mean(), teacher - teacher.mean()
    return 1.0 - (s * t).sum() / (s.norm() * t.norm())


def listwise_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of KL(softmax(teacher/τ) ‖ softmax(student/τ)) in nats: 0 best.

    A constant row is the uniform distribution; a block of one candidate has loss 0.
    """
    target = torch.log_softmax(teacher / temperature, dim=1)
    predicted = torch.log_softmax(student / temperature, dim=1)
    return torch.nn.functional.kl_div(predicted, target, reduction="batchmean", log_target=True)


def reference_loss(student: Tensor, teacher: Tensor, alpha: float, temperature: float) -> Tensor:
    """The published loss: α · `pearson_loss` + (1 − α) · `listwise_loss`."""
    listwise = listwise_loss(student, teacher, temperature)
    return alpha * pearson_loss(student, teacher) + (1.0 - alpha) * listwise


def _is_constant(block: Tensor) -> bool:
    values = block.detach()
    rounding = 8 * torch.finfo(values.dtype).eps * values.abs().max()
    return bool(values.max() - values.min() <= rounding)
