import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.methods.oh import OH, margin, norm_margin, overhaul, partial_l2
from tests.support import golden_methods as golden

STAGES = range(3)


@pytest.mark.parametrize("case", golden.CASES)
def test_margins_match_the_golden_values(case: str) -> None:
    values = golden.load(case, "oh")
    for stage in STAGES:
        computed = margin(values[f"bn_weight{stage}"], values[f"bn_bias{stage}"])
        # The expected ones are stored in float32.
        torch.testing.assert_close(computed, values[f"margin{stage}"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_loss_and_gradients_match_the_golden_values(case: str, dtype: torch.dtype) -> None:
    values = golden.load(case, "oh", dtype)
    student = [golden.leaf(values[f"connected_preact{stage}"]) for stage in STAGES]
    teacher = [golden.leaf(values[f"teacher_preact{stage}"]) for stage in STAGES]
    loss = overhaul(student, teacher, [values[f"margin{stage}"] for stage in STAGES])
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    for stage in STAGES:
        golden.assert_golden(student[stage].grad, values[f"grad_student{stage}"], dtype)
        assert teacher[stage].grad is None


def slow_loss(student: list[Tensor], teacher: list[Tensor], margins: list[Tensor]) -> float:
    """Written with scalars for maps of equal size."""
    total = 0.0
    for stage, (ours, theirs, cut) in enumerate(zip(student, teacher, margins)):
        batch, channels, height, width = ours.shape
        for b in range(batch):
            for c in range(channels):
                for y in range(height):
                    for x in range(width):
                        s, target = float(ours[b, c, y, x]), max(float(theirs[b, c, y, x]), float(cut[c]))
                        if target > 0 or s > target:
                            total += 0.5 ** (len(student) - stage - 1) * (s - target) ** 2 / batch / 1000
    return total


def test_loss_is_the_slow_reference() -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 4), (2, 5, 2, 2))
    student, teacher = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
    margins = [-torch.rand(3).double(), -torch.rand(5).double()]
    assert overhaul(student, teacher, margins).item() == pytest.approx(slow_loss(student, teacher, margins), rel=1e-12)


@pytest.mark.parametrize(("weight", "bias"), [(0.7, -0.4), (-1.3, 0.9), (0.5, 1.4), (2.0, 0.0)])
def test_margin_is_the_mean_of_the_negative_part(weight: float, bias: float) -> None:
    # Midpoint rule over the negative half line.
    step, mass, first = 1e-4, 0.0, 0.0
    for k in range(round((9 * abs(weight) + abs(bias)) / step)):
        x = -(k + 0.5) * step
        density = math.exp(-(((x - bias) / weight) ** 2) / 2)
        mass, first = mass + density, first + x * density
    computed = margin(torch.tensor([weight]).double(), torch.tensor([bias]).double())
    assert computed.item() == pytest.approx(first / mass, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1e-12, 1.0, -2.0])
@pytest.mark.parametrize("bias", [-50.0, 0.0, 50.0])
def test_margins_are_finite_and_right_at_the_edges(weight: float, bias: float) -> None:
    computed = margin(torch.tensor([weight]), torch.tensor([bias])).item()
    expected = {-50.0: -50.0, 0.0: -abs(weight) * math.sqrt(2 / math.pi), 50.0: -3 * abs(weight)}[bias]
    assert computed == pytest.approx(expected, rel=1e-6, abs=1e-30)


def test_a_margin_falls_back_to_three_deviations_where_less_than_a_thousandth_is_negative() -> None:
    computed = margin(torch.tensor([1.0, 1.0]).double(), torch.tensor([3.09, 3.0903]).double())
    assert computed[0] > -1
    assert computed[1] == -3


def test_only_a_positive_target_or_a_student_above_it_counts() -> None:
    cut = torch.tensor([-1.0])

    def distance(student: float, teacher: float) -> float:
        return partial_l2(torch.full((1, 1, 1, 1), student), torch.full((1, 1, 1, 1), teacher), cut).item()

    assert distance(-3.0, -2.0) == 0
    assert distance(-0.9, -0.5) == 0
    assert distance(-0.5, -0.5) == 0
    assert distance(0.0, -2.0) == 1
    assert distance(-2.0, 1.0) == 9
    assert distance(3.0, 1.0) == 4
    assert distance(1.0, 1.0) == 0


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_the_larger_map_is_averaged_to_the_smaller(larger: str) -> None:
    torch.manual_seed(1)
    small = torch.randn(2, 3, 2, 2)
    big = small.repeat_interleave(2, 2).repeat_interleave(2, 3) + torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    cut, other = -torch.ones(3), torch.randn(2, 3, 2, 2)
    given = (big, other) if larger == "student" else (other, big)
    reduced = (small, other) if larger == "student" else (other, small)
    torch.testing.assert_close(overhaul([given[0]], [given[1]], [cut]), overhaul([reduced[0]], [reduced[1]], [cut]))


def test_margins_come_from_the_closing_norms_and_follow_the_state() -> None:
    pair = golden.pair("equal")
    for norm in pair.closing_norms:
        assert norm is not None
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.uniform_(norm.bias, -1, 1)
    method = OH(pair)
    assert method.batch_statistics
    for computed, norm in zip(method.margins, pair.closing_norms):
        assert norm is not None
        assert computed.dtype == torch.float32
        torch.testing.assert_close(computed.double(), margin(norm.weight, norm.bias), rtol=1e-6, atol=1e-7)
    assert {"margin0", "margin1", "margin2"} <= method.state_dict().keys()
    assert {id(norm) for norm in pair.closing_norms}.isdisjoint(id(module) for module in method.modules())
    other = OH(golden.pair("equal"))
    assert not torch.equal(other.margins[0], method.margins[0])
    golden.assert_round_trip(method, other)


def test_a_norm_without_weights_counts_as_standard_normal() -> None:
    computed = norm_margin(nn.BatchNorm2d(2, affine=False))
    assert computed.tolist() == pytest.approx([-math.sqrt(2 / math.pi)] * 2)


@pytest.mark.parametrize("case", golden.STUDENTS)
def test_gradients_train_student_and_connectors_and_never_the_teacher(case: str) -> None:
    torch.manual_seed(2)
    method = OH(golden.pair(case))
    student, teacher = golden.both(method, 4)
    method(student, teacher, golden.batch(4)).backward()
    assert all(preact.grad is not None and preact.grad.any() for preact in student.preacts)
    assert all(feature.grad is None for feature in student.features)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
    assert all(value.grad is None for value in golden.leaves(teacher))


def test_connectors_are_one_by_one_without_bias() -> None:
    method = OH(golden.pair("equal"))
    shapes = {name: tuple(parameter.shape) for name, parameter in method.connectors.named_parameters()}
    assert shapes.keys() == {f"{stage}.{name}" for stage in STAGES for name in ("0.weight", "1.weight", "1.bias")}
    assert [shapes[f"{stage}.0.weight"] for stage in STAGES] == [(16, 8, 1, 1), (32, 16, 1, 1), (64, 32, 1, 1)]


def test_autocast_connects_in_half_precision_and_compares_in_float32() -> None:
    torch.manual_seed(3)
    method = OH(golden.pair("equal"))
    student, teacher = golden.both(method, 4)
    expected = method(student, teacher, golden.batch(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(student, teacher, golden.batch(4))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_a_missing_closing_norm_is_said_before_training() -> None:
    pair = golden.pair("equal")
    first, _, last = pair.closing_norms
    with pytest.raises(InputError, match="teacher stage 2 closes without one: name it in the stage's `closing_norm`"):
        OH(replace(pair, closing_norms=(first, None, last)))
