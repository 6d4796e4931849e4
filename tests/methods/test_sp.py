import math

import pytest
import torch

from sftn.methods.sp import SP, similarity_loss
from tests.support import golden_methods as golden


def slow(student, teacher):
    """Inner products of the images, each row ÷ its length; squared Frobenius distance ÷ B²."""

    def matrix(rows):
        products = [[sum(a * b for a, b in zip(x, y)) for y in rows] for x in rows]
        return [[value / math.sqrt(sum(v**2 for v in row)) for value in row] for row in products]

    ours, theirs, count = matrix(student), matrix(teacher), len(student)
    return sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(count) for j in range(count)) / count**2


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "sp", dtype)
    golden.assert_loss_and_gradient(SP(golden.pair(case)), values, dtype, stage=2)


def test_slow_reference():
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=draw)
    teacher = torch.randn(4, 2, 3, 1, dtype=torch.float64, generator=draw)
    expected = slow(student.flatten(1).tolist(), teacher.flatten(1).tolist())
    assert similarity_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_rotations_and_a_common_scale_change_nothing():
    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 5, 6, dtype=torch.float64, generator=draw)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=draw))
    torch.testing.assert_close(similarity_loss(student @ rotation * 7, teacher), similarity_loss(student, teacher))
    assert similarity_loss(teacher @ rotation * 7, teacher).item() == pytest.approx(0, abs=1e-15)


def test_an_image_that_is_all_zero_disturbs_no_other_gradient():
    student, teacher = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    student[0] = 0
    student = golden.leaf(student)
    similarity_loss(student, teacher).backward()
    assert 0 < student.grad.abs().max() < 1
