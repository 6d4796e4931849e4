import math

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import DKD
from sftn.methods.dkd import other_classes_loss, target_class_loss
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import others, standardised
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


def slow(student, teacher, labels, temperature):
    """TCKD and NCKD of the paper, class by class: the divergences of (own, other) and of the others alone, ×T²."""

    def softmax(row):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    def divergence(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q))

    target, rest = 0.0, 0.0
    for ours, theirs, own in zip(student, teacher, labels):
        p, q = softmax(theirs), softmax(ours)
        target += divergence([p[own], 1 - p[own]], [q[own], 1 - q[own]])
        left = [[value for k, value in enumerate(row) if k != own] for row in (theirs, ours)]
        rest += divergence(*map(softmax, left))
    return target * temperature**2 / len(labels), rest * temperature**2 / len(labels)


def logits(rows=5, classes=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    both = torch.randn(2, rows, classes, dtype=torch.float64, generator=draw) * 3
    return *both, torch.randint(classes, (rows,), generator=draw)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "dkd", dtype)
    given = golden.numbers(values, "alpha", "beta", "temperature")
    golden.assert_golden_logits(DKD(golden.of_classes(CLASSES[case]), **given), values, dtype)
    parts = values["student_logits"], values["teacher_logits"], values["labels"], given["temperature"]
    golden.assert_golden(target_class_loss(*parts), values["tckd"], dtype)
    golden.assert_golden(other_classes_loss(*parts), values["nckd"], dtype)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_standardised(case, dtype):
    values = golden.newer(case, "dkd_lskd", dtype)
    given = golden.numbers(values, "alpha", "beta", "temperature")
    method = DKD(golden.of_classes(CLASSES[case]), standardise=True, **given)
    golden.assert_golden_logits(method, values, dtype)
    for name in ("student", "teacher"):
        golden.assert_golden(standardised(values[f"{name}_logits"]), values[f"standardised_{name}"], dtype)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_slow_reference(temperature):
    student, teacher, labels = logits()
    target, rest = slow(student.tolist(), teacher.tolist(), labels.tolist(), temperature)
    assert target_class_loss(student, teacher, labels, temperature).item() == pytest.approx(target, rel=1e-12)
    assert other_classes_loss(student, teacher, labels, temperature).item() == pytest.approx(rest, rel=1e-12)


def test_kd_is_the_target_plus_what_the_teacher_leaves_of_the_others():
    """Equation 6 of the paper, image by image."""
    for student, teacher, label in zip(*logits()):
        given = student[None], teacher[None], label[None]
        left = 1 - teacher.div(4).softmax(0)[label]
        whole = target_class_loss(*given, 4.0) + left * other_classes_loss(*given, 4.0)
        torch.testing.assert_close(whole, distillation_loss(student[None], teacher[None], 4.0))


def test_the_others_are_all_but_the_own_class_in_their_order():
    rows = torch.arange(12).view(3, 4)
    assert others(rows, torch.tensor([0, 3, 1])).tolist() == [[1, 2, 3], [4, 5, 6], [8, 10, 11]]


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("lead", [450.0, 5400.0, 3e4])
def test_however_sure_a_network_is_both_gradients_are_finite(lead, dtype):
    """Public code overflows at 450 in float32, and its mask leaks from a lead of 1000·T on."""
    given, teacher, labels = logits(8)
    given[:4].scatter_add_(1, labels[:4, None], torch.full((4, 1), lead, dtype=torch.float64))
    teacher[2:6].scatter_add_(1, labels[2:6, None], torch.full((4, 1), lead, dtype=torch.float64))
    student, teacher = golden.leaf(given.to(dtype)), golden.leaf(teacher.to(dtype))
    loss = target_class_loss(student, teacher, labels, 4.0) + other_classes_loss(student, teacher, labels, 4.0)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert teacher.grad.isfinite().all()
    exact = other_classes_loss(given, teacher.detach().double(), labels, 4.0)
    torch.testing.assert_close(other_classes_loss(student, teacher, labels, 4.0).double(), exact, rtol=1e-5, atol=0)


def test_two_classes_leave_the_target_alone():
    student, teacher, labels = logits(classes=2)
    loss = golden.with_logits(DKD(golden.of_classes(2)), student, teacher, labels)
    assert loss == target_class_loss(student, teacher, labels, 4.0)
    assert loss > 0


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"beta": -1.0}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"dkd's {name}"):
        DKD(golden.pair("equal"), **options)
