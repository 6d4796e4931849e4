import statistics

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import DKD
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import standardised
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from tests.support import golden_methods as golden
from tests.support import tiny


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_kd_of_standardised_logits(case, dtype):
    values = golden.newer(case, "lskd", dtype)
    student = golden.leaf(values["student_logits"])
    loss = distillation_loss(student, values["teacher_logits"], values["temperature"].item(), standardise=True)
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(student.grad, values["grad_student"], dtype)
    for name in ("student", "teacher"):
        golden.assert_golden(standardised(values[f"{name}_logits"]), values[f"standardised_{name}"], dtype)


def test_slow_reference():
    rows = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, found in zip(rows.tolist(), standardised(rows)):
        mean, deviation = statistics.fmean(row), statistics.stdev(row)
        assert found.tolist() == pytest.approx([(value - mean) / (deviation + 1e-7) for value in row], rel=1e-12)


def test_neither_a_shift_nor_a_scale_of_logits_matters():
    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 5, 8, dtype=torch.float64, generator=draw)
    scale, shift = torch.rand(2, 5, 1, dtype=torch.float64, generator=draw) + 0.5
    loss = distillation_loss(student, teacher, 2.0, standardise=True)
    torch.testing.assert_close(distillation_loss(scale * student + shift, teacher, 2.0, True), loss, rtol=1e-6, atol=0)
    assert distillation_loss(3 * teacher - 1, teacher, 2.0, True).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.3, 3e4])
def test_a_constant_row_is_zero_and_passes_no_gradient(value):
    student = golden.leaf(torch.cat([torch.full((1, 5), value), torch.randn(3, 5)]))
    loss = distillation_loss(student, torch.randn(4, 5), 2.0, standardise=True)
    loss.backward()
    assert not standardised(student)[0].any()
    assert not student.grad[0].any()
    assert (student.grad[1:].abs().amax(1) > 1e-3).all()


def test_two_classes_are_refused():
    with pytest.raises(InputError, match="two classes"):
        DKD(golden.of_classes(2), standardise=True)
    networks = tiny.network(classes=2), tiny.network((6, 8, 12), classes=2)
    for name in ("kd@std", "dkd@std"):
        with pytest.raises(InputError, match="two classes"):
            Distiller(*networks, objective(name), tiny.IMAGE)
