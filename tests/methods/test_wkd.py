import math
import statistics

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import WKDF, WKDL
from sftn.methods.wkd import cka_similarities, cosine_similarities, cost, moment_losses, moments, transport_loss
from sftn.networks import build
from sftn.networks.alignment import Pair
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_of_logits(case, dtype):
    values = golden.newer(case, "wkd_l", dtype)
    how = golden.numbers(values, "gamma", "temperature", "regularisation", "iterations")
    method = WKDL(golden.of_classes(CLASSES[case]), **how).to(dtype)
    method.cost.copy_(values["cost"])
    golden.assert_golden_logits(method, values, dtype)
    given = values["student_logits"], values["teacher_logits"], values["labels"], values["cost"]
    each = transport_loss(*given, how["temperature"])
    golden.assert_golden(each, values["transport_each"], dtype)
    golden.assert_golden(each.mean(), values["transport"], dtype)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_of_features(case, dtype):
    values = golden.newer(case, "wkd_f", dtype)
    student = golden.leaf(values["connected_feature"])
    mean, deviation = moment_losses(student, values["teacher_feature"], int(values["grid"]), values["eps"].item())
    loss = values["ratio"].item() * mean + deviation
    loss.backward()
    golden.assert_golden(mean, values["mean"], dtype)
    golden.assert_golden(deviation, values["std"], dtype)
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(student.grad, values["grad_student"], dtype)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_costs(case, dtype):
    values = golden.newer(case, "wkd_cost", dtype)
    sharpen = values["sharpen"].item()
    cka, cosine = cka_similarities(values["class_logits"]), cosine_similarities(values["classifier_weight"])
    for name, similarities in (("cka", cka), ("cosine", cosine)):
        for key, found in ((name, 1 - similarities), (f"{name}_cost", cost(similarities, sharpen))):
            off = ~torch.eye(len(found), dtype=torch.bool)  # the diagonal is rounding noise
            golden.assert_golden(found[off], values[key][off], dtype)
            assert found.diagonal().abs().max() < 1e-6


def slow(student, teacher, own, costs, temperature, regularisation, iterations):
    """Sinkhorn of one image, number by number."""

    def softmax(row):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    left = [k for k in range(len(student)) if k != own]
    mu, nu = (softmax([row[k] for k in left]) for row in (student, teacher))
    between = [[max(costs[i][j], 0) + 1e-8 for j in left] for i in left]
    kernel = [[math.exp(-value / regularisation) for value in row] for row in between]
    size = range(len(left))
    u = [1 / len(left)] * len(left)
    v = u
    for _ in range(iterations):
        v = [nu[j] / (sum(kernel[i][j] * u[i] for i in size) + 1e-8) for j in size]
        u = [mu[i] / (sum(kernel[i][j] * v[j] for j in size) + 1e-8) for i in size]
    return sum(u[i] * kernel[i][j] * v[j] * between[i][j] for i in size for j in size)


def logits(rows=3, classes=6):
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, rows, classes, dtype=torch.float64, generator=draw) * 3
    costs = torch.rand(classes, classes, dtype=torch.float64, generator=draw) - 0.1
    return student, teacher, torch.randint(classes, (rows,), generator=draw), costs


@pytest.mark.parametrize("iterations", [1, 10])
def test_slow_reference_of_transport(iterations):
    """With costs that are not symmetric, so that rows and columns cannot be told for each other."""
    student, teacher, labels, costs = logits()
    found = transport_loss(student, teacher, labels, costs, 2.0, 0.3, iterations)
    rows = zip(student.tolist(), teacher.tolist(), labels.tolist())
    expected = [slow(*row, costs.tolist(), 2.0, 0.3, iterations) for row in rows]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_transport_costs_what_is_moved_and_nothing_where_networks_agree():
    """Where every move costs 1, the probability that must move: half the absolute difference."""
    student, teacher, labels, _ = logits()
    labels = torch.zeros_like(labels)
    costs = torch.ones(6, 6, dtype=torch.float64) - torch.eye(6)
    p, q = (rows[:, 1:].softmax(1) for rows in (student, teacher))
    found = transport_loss(student, teacher, labels, costs, 1.0, 0.07, 200)
    torch.testing.assert_close(found, (p - q).abs().sum(1) / 2, rtol=3e-3, atol=0)
    assert transport_loss(teacher, teacher, labels, costs, 1.0, 0.07, 200).max() < 1e-5


@pytest.mark.parametrize(("height", "grid"), [(4, 1), (4, 2), (5, 2)])
def test_slow_reference_of_moments(height, grid):
    feature = torch.randn(1, 1, height, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    means, deviations = moments(feature, grid)
    rows = feature[0, 0].tolist()

    def cut(size, k):
        return range(math.floor(k * size / grid), math.ceil((k + 1) * size / grid))

    cells = [[rows[i][j] for i in cut(height, a) for j in cut(6, b)] for a in range(grid) for b in range(grid)]
    assert means[0, 0].tolist() == pytest.approx([statistics.fmean(cell) for cell in cells], rel=1e-12)
    expected = [math.sqrt(statistics.variance(cell) + 1e-5) for cell in cells]
    assert deviations[0, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_features_count_by_their_moments_alone():
    """Where in a map something is does not matter, as long as it is in the same cell."""
    student, teacher = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    shuffled = student.flatten(2)[..., torch.randperm(36)].unflatten(2, (6, 6))
    for grid, same in ((1, True), (2, False)):
        pairs = zip(moment_losses(student, teacher, grid), moment_losses(shuffled, teacher, grid))
        assert all(torch.allclose(a, b) is same for a, b in pairs)


def test_costs_come_from_the_teachers_classifier_and_gamma_falls():
    student, teacher = build("resnet8", 10), build("wrn_10_1", 10)
    method = WKDL(Pair.of(teacher, student, (3, 32, 32), torch.zeros(4, dtype=torch.long)))
    method.attach(student, teacher, (3, 32, 32))
    torch.testing.assert_close(method.cost, cost(cosine_similarities(teacher.head.linear.weight.detach())))
    assert not method.cost.requires_grad
    assert list(method.state_dict()) == ["cost"]
    found = []
    for epoch in (0, 149, 194, 239):
        method.set_epoch(epoch, 240)
        found.append(method.factor.item())
    assert found == pytest.approx([1, 1, 0.5, 0])


def test_two_classes_leave_the_target_alone():
    student, teacher, labels = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0, 1, 1])
    assert transport_loss(student, teacher, labels, torch.ones(2, 2) - torch.eye(2)).max() < 1e-7
    assert golden.with_logits(WKDL(golden.of_classes(2)), student, teacher, labels).isfinite()


@pytest.mark.parametrize("case", ["equal", "doubled"])
def test_state_round_trip(case):
    golden.assert_round_trip(WKDF(golden.pair(case)), WKDF(golden.pair(case)))


def test_options_out_of_range_are_refused():
    for options in ({"gamma": -1.0}, {"temperature": 0.0}, {"regularisation": 0.0}, {"iterations": 0}):
        (name,) = options
        with pytest.raises(InputError, match=f"wkd-l's {name}"):
            WKDL(golden.pair("equal"), **options)
    with pytest.raises(InputError, match="wkd-f's ratio"):
        WKDF(golden.pair("equal"), ratio=-1.0)
    with pytest.raises(InputError, match="cells of one pixel"):
        WKDF(golden.pair("equal"), grid=4)
