import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.methods.fitnet import FitNet, hint_loss

from .golden import (
    CASES,
    DTYPES,
    HOSTILE,
    activations,
    assert_golden,
    assert_round_trip,
    assert_survives,
    batch,
    leaf,
    load,
    pair,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_golden(case, dtype):
    golden = load(case, "fitnet", dtype)
    method = FitNet(pair(case)).to(dtype)
    convolution, norm, _ = method.connector
    convolution.load_state_dict({"weight": golden["conv_weight"], "bias": golden["conv_bias"]})
    norm.load_state_dict({"weight": golden["bn_weight"], "bias": golden["bn_bias"]}, strict=False)
    feature = leaf(golden["student_feature"])
    assert_golden(method.connector(feature), golden["connected"], dtype)

    student = activations(method.pair.student, 1)
    teacher = activations(method.pair.teacher, 1)
    student = student._replace(features=(student.features[0], feature, student.features[2]))
    teacher = teacher._replace(features=(teacher.features[0], golden["teacher_feature"], teacher.features[2]))
    loss = method(student, teacher, batch(1))
    loss.backward()
    assert_golden(loss, golden["loss"], dtype)
    assert_golden(feature.grad, golden["grad_student"], dtype)


def test_slow_reference():
    connected, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = sum((a - b) ** 2 for a, b in zip(connected.flatten().tolist(), teacher.flatten().tolist()))
    assert hint_loss(connected, teacher).item() == pytest.approx(total / 24, rel=1e-12)


def test_zero_where_the_connected_student_is_the_teacher():
    method = FitNet(pair("halved"))
    student = activations(method.pair.student, 4)
    connected = method.connector(student.features[1])
    teacher = activations(method.pair.teacher, 4)._replace(features=(connected, connected, connected))
    assert method(student, teacher, batch(4)).item() == 0


@pytest.mark.parametrize(
    ("case", "kind", "kernel", "stride"),
    [
        ("equal", nn.Conv2d, 1, 1),
        ("halved", nn.ConvTranspose2d, 4, 2),
        ("doubled", nn.Conv2d, 3, 2),
    ],
)
def test_the_connector_of_each_ratio(case, kind, kernel, stride):
    layers = FitNet(pair(case)).connector
    assert [type(layer) for layer in layers] == [kind, nn.BatchNorm2d, nn.ReLU]
    assert (layers[0].kernel_size, layers[0].stride) == ((kernel, kernel), (stride, stride))


def test_stages_count_from_one_and_end_with_the_last():
    assert [FitNet(pair("equal"), stage=stage).stage for stage in (1, 2, 3, 4)] == [0, 1, 2, 2]
    with pytest.raises(InputError, match="count from 1"):
        FitNet(pair("equal"), stage=0)


@pytest.mark.parametrize("size", [1, 2, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_activations(kind, dtype, size):
    assert_survives(FitNet(pair("halved")), kind, dtype, size)


@pytest.mark.parametrize("case", ["equal", "doubled"])
def test_state_round_trip(case):
    assert_round_trip(FitNet(pair(case)), FitNet(pair(case)))


def test_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_survives(FitNet(pair("doubled")), "random", torch.bfloat16, 2)
