"""The distillation losses against values worked out by hand and against finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, pearsonr

from influcoder_lib.student.losses import listwise_loss, pearson_loss, reference_loss


def blocks(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) * 0.3
    return student.requires_grad_(), teacher


def test_pearson_by_hand() -> None:
    # centred: (-1, 0, 1) and (-1, 1, 0), so the correlation is 1 / 2
    student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 7.0, 6.0]])
    assert pearson_loss(student, teacher).item() == pytest.approx(0.5)


def test_pearson_is_over_the_whole_block_and_not_by_row() -> None:
    student, teacher = blocks()
    expected = 1 - pearsonr(student.detach().ravel(), teacher.ravel()).statistic
    assert pearson_loss(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize(("factor", "loss"), [(3.0, 0.0), (-0.5, 2.0)])
def test_pearson_ignores_scale_and_offset_but_not_sign(factor: float, loss: float) -> None:
    _, teacher = blocks()
    assert pearson_loss(factor * teacher + 7, teacher).item() == pytest.approx(loss, abs=1e-9)


def test_listwise_by_hand() -> None:
    # softmax of (log 3, 0) is (3/4, 1/4); the student's zeros are (1/2, 1/2)
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert listwise_loss(student, teacher, 1.0).item() == pytest.approx(expected)
    assert listwise_loss(student / 0.05, teacher * 0.05, 0.05).item() == pytest.approx(expected)


def test_listwise_is_the_mean_over_rows_of_the_divergence_from_the_teacher() -> None:
    student, teacher = blocks()
    p = torch.softmax(teacher / 0.2, dim=1).numpy()
    q = torch.softmax(student.detach() / 0.2, dim=1).numpy()
    expected = np.mean([entropy(row_p, row_q) for row_p, row_q in zip(p, q, strict=True)])
    assert listwise_loss(student, teacher, 0.2).item() == pytest.approx(expected)


def test_reference_mixes_the_two_by_alpha() -> None:
    student, teacher = blocks()
    pearson, listwise = pearson_loss(student, teacher), listwise_loss(student, teacher, 0.05)
    mixed = reference_loss(student, teacher, alpha=0.3, temperature=0.05)
    assert mixed.item() == pytest.approx(0.3 * pearson.item() + 0.7 * listwise.item())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_gradient_agrees_with_finite_differences(alpha: float) -> None:
    student, teacher = blocks()
    assert torch.autograd.gradcheck(lambda s: reference_loss(s, teacher, alpha, 0.1), (student,))


@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
def test_a_constant_block_has_pearson_loss_one_and_finite_gradients(constant: str) -> None:
    student, teacher = (block.detach().float() for block in blocks())
    if constant != "teacher":
        student = torch.full_like(student, 0.3)
    if constant != "student":
        teacher = torch.full_like(teacher, -0.1)
    student.requires_grad_()
    pearson = pearson_loss(student, teacher)
    assert pearson.item() == 1.0
    pearson.backward()
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros_like(student))
    reference_loss(student, teacher, 0.5, 0.05).backward()
    assert torch.isfinite(student.grad).all()


def test_rounding_noise_does_not_count_as_variation() -> None:
    noisy = torch.full((2, 4), 0.3)
    noisy[0, 0] = torch.nextafter(noisy[0, 0], torch.tensor(1.0))
    assert pearson_loss(noisy, torch.arange(8.0).reshape(2, 4)).item() == 1.0


def test_a_single_candidate_has_no_listwise_loss() -> None:
    assert listwise_loss(torch.tensor([[0.4]]), torch.tensor([[-0.2]]), 0.05).item() == 0.0
