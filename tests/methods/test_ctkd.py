import math

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import CTKD
from sftn.methods.ctkd import learned_temperature, reversal_at
from sftn.methods.kd import distillation_loss
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


def slow(student, teacher, temperature):
    """T² times the divergence of two softmaxes at T, the mean over the images."""
    total = 0.0
    for ours, theirs in zip(student, teacher):
        ours, theirs = ([math.exp(value / temperature) for value in row] for row in (ours, theirs))
        pairs = [(t / sum(theirs), s / sum(ours)) for t, s in zip(theirs, ours)]
        total += sum(p * math.log(p / q) for p, q in pairs)
    return total * temperature**2 / len(student)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "ctkd", dtype)
    values["labels"] = torch.zeros(len(values["student_logits"]), dtype=torch.long)
    given = golden.numbers(values, "t_start", "t_end")
    method = CTKD(golden.of_classes(CLASSES[case]), start=values["parameter"].item(), **given).to(dtype)
    method.reversal.copy_(values["reversal"])
    golden.assert_golden_logits(method, values, dtype)
    golden.assert_golden(method.parameter.grad, values["grad_parameter"], dtype)
    temperature = learned_temperature(method.parameter, method.reversal, **given)
    golden.assert_golden(temperature, values["temperature"], dtype)


@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_reversal(case):
    """Epochs are counted from 1 there."""
    values = golden.newer(case, "schedules")
    found = [reversal_at(epoch, int(values["ctkd_loops"])) for epoch in range(len(values["epoch"]))]
    assert found == pytest.approx(values["ctkd_reversal"].tolist(), abs=1e-12)


def test_slow_reference_of_loss_and_gradient():
    """The gradient of θ by a difference, through both softmaxes and T², and reversed."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64, generator=draw) * 4
    method = CTKD(golden.of_classes(6), start=-1.0).double()
    method.set_epoch(2, 240)

    def at(parameter):
        return slow(student.tolist(), teacher.tolist(), 1 + 20 / (1 + math.exp(-parameter)))

    loss = golden.with_logits(method, student, teacher, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(at(-1.0), rel=1e-12)
    slope = (at(-1 + 1e-5) - at(-1 - 1e-5)) / 2e-5
    reversal = -(1 - math.cos(math.pi * 3 / 10)) / 2
    assert method.parameter.grad.item() == pytest.approx(reversal * slope, rel=1e-7)


def test_a_step_makes_the_loss_larger_and_the_value_is_kds():
    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 16, 10, generator=draw) * 4
    labels = torch.zeros(16, dtype=torch.long)
    method = CTKD(golden.pair("equal"), start=-1.0)
    loss = golden.with_logits(method, student, teacher, labels)
    loss.backward()
    temperature = (1 + 20 * torch.tensor(-1.0).sigmoid()).item()
    torch.testing.assert_close(loss, distillation_loss(student, teacher, temperature))
    with torch.no_grad():
        method.parameter -= 0.1 * method.parameter.grad
    assert golden.with_logits(method, student, teacher, labels) > loss


def test_the_state_goes_round_and_the_reversal_follows_the_epoch():
    golden.assert_round_trip(CTKD(golden.pair("equal")), CTKD(golden.pair("equal")))
    method = CTKD(golden.pair("equal"))
    assert list(method.state_dict()) == ["parameter"]
    found = []
    for epoch in (0, 9, 29):
        method.set_epoch(epoch, 30)
        found.append(method.reversal.item())
    assert found == [-1.0, -1.0, -1.0]  # 10 of 240 epochs are one of 30
    method = CTKD(golden.pair("equal"), loops=20)
    method.set_epoch(9, 30)
    assert method.reversal.item() == pytest.approx(-0.5)


@pytest.mark.parametrize("options", [{"t_end": 0.0}, {"t_start": -1.0}, {"loops": 0.0}, {"loops": math.inf}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"ctkd's {name}"):
        CTKD(golden.pair("equal"), **options)
