import math

import pytest
import torch

from sftn.errors import InputError
from sftn.methods.kd import distillation_loss
from tests.support.golden_methods import CASES, DTYPES, assert_golden, leaf, load


def slow(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """Hinton et al.: the divergence of two softmaxes at temperature T, ×T², mean over the images."""
    total = 0.0
    for ours, theirs in zip(student, teacher):
        z_ours = sum(math.exp(value / temperature) for value in ours)
        z_theirs = sum(math.exp(value / temperature) for value in theirs)
        for s, t in zip(ours, theirs):
            p, q = math.exp(t / temperature) / z_theirs, math.exp(s / temperature) / z_ours
            total += p * math.log(p / q)
    return total * temperature**2 / len(student)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["kd_T1", "kd_T4"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case, name, dtype):
    golden = load(case, name, dtype)
    student = leaf(golden["student_logits"])
    loss = distillation_loss(student, golden["teacher_logits"], float(golden["temperature"]))
    loss.backward()
    assert_golden(loss, golden["loss"], dtype)
    assert_golden(student.grad, golden["grad_student"], dtype)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_slow_reference(temperature):
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    expected = slow(student.tolist(), teacher.tolist(), temperature)
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_zero_where_both_agree_and_blind_to_a_shift():
    student, teacher = torch.randn(2, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert distillation_loss(teacher + 5, teacher).item() == pytest.approx(0, abs=1e-14)
    shifted = distillation_loss(student + torch.randn(6, 1), teacher)
    torch.testing.assert_close(shifted, distillation_loss(student, teacher))
    assert distillation_loss(student, teacher) > 0


def test_a_teacher_that_is_not_detached_gets_its_gradient():
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(distillation_loss, (leaf(student), leaf(teacher)))


@pytest.mark.parametrize("size", [1, 2, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saturated_logits(dtype, size):
    signs = torch.randn(2, size, 10, generator=torch.Generator().manual_seed(3)).sign() * 6e4
    zero, same = torch.zeros(size, 10), torch.full((size, 10), 6e4)
    for ours, theirs in [(signs[0], signs[1]), (zero, signs[1]), (signs[0], zero), (same, signs[1]), (same, same)]:
        student, teacher = leaf(ours.to(dtype)), leaf(theirs.to(dtype))
        loss = distillation_loss(student, teacher, 1.0)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert student.grad.isfinite().all()
        assert teacher.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(InputError, match="not positive"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)
