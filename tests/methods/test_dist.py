import math
import statistics

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import DIST
from sftn.methods.dist import correlation_losses
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


def slow(student, teacher, temperature):
    """Equations 6 to 10: softmaxes, Pearson's correlation of their rows and of their columns."""

    def softmax(row):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    def distance(rows, others):
        found = []
        for u, v in zip(rows, others):
            u, v = ([value - statistics.fmean(row) for value in row] for row in (u, v))
            found.append(1 - sum(a * b for a, b in zip(u, v)) / (math.hypot(*u) * math.hypot(*v) + 1e-8))
        return statistics.fmean(found) * temperature**2

    ours, theirs = ([softmax(row) for row in rows] for rows in (student, teacher))
    return distance(ours, theirs), distance(zip(*ours), zip(*theirs))


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "dist", dtype)
    values["labels"] = torch.zeros(len(values["student_logits"]), dtype=torch.long)
    given = golden.numbers(values, "beta", "gamma")
    tau = values["tau"].item()
    golden.assert_golden_logits(DIST(golden.of_classes(CLASSES[case]), temperature=tau, **given), values, dtype)
    inter, intra = correlation_losses(values["student_logits"], values["teacher_logits"], tau)
    golden.assert_golden(inter, values["inter"], dtype)
    golden.assert_golden(intra, values["intra"], dtype)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_slow_reference(temperature):
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64, generator=draw)
    expected = slow(student.tolist(), teacher.tolist(), temperature)
    assert [loss.item() for loss in correlation_losses(student, teacher, temperature)] == pytest.approx(expected)


def test_probabilities_that_go_along_cost_nothing():
    """A student half as sure of everything: p' = p/2 + 1/(2K) correlates fully with p, image by image."""
    teacher = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    student = (teacher.softmax(1) / 2 + 0.1).log()
    for loss in correlation_losses(student, teacher, 1.0):
        assert loss.item() == pytest.approx(0, abs=1e-6)
    for loss in correlation_losses(student[:, torch.randperm(5)], teacher, 1.0):
        assert loss > 0.01


def test_one_image_has_no_correlation_over_the_batch():
    student, teacher = golden.leaf(torch.randn(1, 5)), torch.randn(1, 5)
    _, intra = correlation_losses(student, teacher, 4.0)
    intra.backward()
    assert intra == 16
    assert not student.grad.any()


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"gamma": -1.0}, {"temperature": -1.0}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"dist's {name}"):
        DIST(golden.pair("equal"), **options)


@pytest.mark.parametrize("dtype", golden.DTYPES)
def test_a_constant_row_passes_no_gradient_and_the_others_theirs(dtype):
    draw = torch.Generator().manual_seed(2)
    given, teacher = torch.randn(2, 4, 10, dtype=dtype, generator=draw)
    given[0] = 0.3
    student = golden.leaf(given)
    inter, _ = correlation_losses(student, teacher, 4.0)
    inter.backward()
    assert not student.grad[0].any()
    assert (student.grad[1:].abs().amax(1) > 1e-3).all()
    expected = (16 + 3 * correlation_losses(given[1:], teacher[1:], 4.0)[0]) / 4
    torch.testing.assert_close(inter.detach(), expected)
