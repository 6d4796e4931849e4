import math

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import NKD
from sftn.methods.dkd import other_classes_loss
from sftn.methods.nkd import nontarget_loss, target_loss
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


def slow(student, teacher, labels, temperature):
    """Both terms, image by image: the target at temperature 1, the others normalised at T."""

    def softmax(row, temperature):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    target, rest = 0.0, 0.0
    for ours, theirs, own in zip(student, teacher, labels):
        target -= softmax(theirs, 1)[own] * math.log(softmax(ours, 1)[own])
        left = [softmax([v for k, v in enumerate(row) if k != own], temperature) for row in (theirs, ours)]
        rest -= sum(p * math.log(q) for p, q in zip(*left))
    return target / len(labels), rest * temperature**2 / len(labels)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "nkd", dtype)
    given = golden.numbers(values, "temperature", "gamma")
    golden.assert_golden_logits(NKD(golden.of_classes(CLASSES[case]), **given), values, dtype)
    parts = values["student_logits"], values["teacher_logits"], values["labels"]
    golden.assert_golden(target_loss(*parts), values["target"], dtype)
    nontarget = given["gamma"] * nontarget_loss(*parts, given["temperature"])
    golden.assert_golden(nontarget, values["nontarget"], dtype)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_slow_reference(temperature):
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64, generator=draw) * 2
    labels = torch.tensor([0, 6, 3, 3, 1])
    target, rest = slow(student.tolist(), teacher.tolist(), labels.tolist(), temperature)
    assert target_loss(student, teacher, labels).item() == pytest.approx(target, rel=1e-12)
    assert nontarget_loss(student, teacher, labels, temperature).item() == pytest.approx(rest, rel=1e-12)


def test_the_others_have_the_gradient_of_dkds_but_not_its_zero():
    draw = torch.Generator().manual_seed(1)
    given, teacher = torch.randn(2, 5, 7, dtype=torch.float64, generator=draw)
    labels = torch.tensor([0, 6, 3, 3, 1])
    student = golden.leaf(given)
    ours, decoupled = (loss(student, teacher, labels, 3.0) for loss in (nontarget_loss, other_classes_loss))
    (found,), (expected,) = (torch.autograd.grad(loss, student) for loss in (ours, decoupled))
    torch.testing.assert_close(found, expected)
    assert other_classes_loss(teacher, teacher, labels, 3.0).item() == pytest.approx(0, abs=1e-12)
    assert nontarget_loss(teacher, teacher, labels, 3.0) > 1


def test_two_classes_leave_the_target_alone():
    student, teacher, labels = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0, 1, 1])
    loss = golden.with_logits(NKD(golden.of_classes(2)), student, teacher, labels)
    assert loss == target_loss(student, teacher, labels)


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"nkd's {name}"):
        NKD(golden.pair("equal"), **options)
