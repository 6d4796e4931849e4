import math

import pytest
import torch

from sftn.methods.pkt import PKT, transfer_loss
from tests.support import golden_methods as golden


def slow(student, teacher, eps):
    """Cosine similarities (c + 1) / 2, each row ÷ its sum; the mean of p·log(p / q)."""

    def odds(rows):
        unit = [[value / (math.hypot(*row) + eps) for value in row] for row in rows]
        kernel = [[(sum(a * b for a, b in zip(x, y)) + 1) / 2 for y in unit] for x in unit]
        return [[value / sum(row) for value in row] for row in kernel]

    pairs = [both for p, q in zip(odds(teacher), odds(student)) for both in zip(p, q)]
    return sum(p * math.log((p + eps) / (q + eps)) for p, q in pairs) / len(pairs)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "pkt", dtype)
    golden.assert_loss_and_gradient(PKT(golden.pair(case)), values, dtype)


@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_slow_reference(eps):
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, dtype=torch.float64, generator=draw)
    teacher = torch.randn(5, 6, dtype=torch.float64, generator=draw)
    expected = slow(student.tolist(), teacher.tolist(), eps)
    assert transfer_loss(student, teacher, eps).item() == pytest.approx(expected, rel=1e-12)


def test_only_directions_matter():
    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 6, 8, dtype=torch.float64, generator=draw)
    lengths = torch.rand(6, 1, dtype=torch.float64, generator=draw) + 0.5
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=draw))
    torch.testing.assert_close(
        transfer_loss(student * lengths, teacher), transfer_loss(student, teacher), rtol=1e-5, atol=0
    )
    assert transfer_loss(teacher @ rotation, teacher).item() == pytest.approx(0, abs=1e-15)
    assert transfer_loss(student, teacher) > 0


def test_a_row_that_is_all_zero_is_as_far_from_all_and_gets_no_gradient():
    student, teacher = torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    student[0] = 0
    expected = slow(student.tolist(), teacher.tolist(), 1e-7)
    student = golden.leaf(student)
    loss = transfer_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert not student.grad[0].any()
    assert 0 < student.grad.abs().max() < 1
