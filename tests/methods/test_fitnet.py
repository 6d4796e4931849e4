import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.methods.fitnet import FitNet, hint_loss
from tests.support import golden_methods as golden


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "fitnet", dtype)
    method = FitNet(golden.pair(case)).to(dtype)
    convolution, norm, _ = method.connector
    convolution.load_state_dict({"weight": values["conv_weight"], "bias": values["conv_bias"]})
    norm.load_state_dict({"weight": values["bn_weight"], "bias": values["bn_bias"]}, strict=False)
    golden.assert_golden(method.connector(values["student_feature"]), values["connected"], dtype)
    golden.assert_loss_and_gradient(method, values, dtype, stage=1)


def test_slow_reference():
    connected, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = sum((a - b) ** 2 for a, b in zip(connected.flatten().tolist(), teacher.flatten().tolist()))
    assert hint_loss(connected, teacher).item() == pytest.approx(total / 24, rel=1e-12)


def test_zero_where_the_connected_student_is_the_teacher():
    method = FitNet(golden.pair("halved"))
    student = golden.activations(method.pair.student, 4)
    connected = method.connector(student.features[1])
    teacher = golden.activations(method.pair.teacher, 4)._replace(features=(connected, connected, connected))
    assert method(student, teacher, golden.batch(4)).item() == 0


@pytest.mark.parametrize(
    ("case", "kind", "kernel", "stride"),
    [
        ("equal", nn.Conv2d, 1, 1),
        ("halved", nn.ConvTranspose2d, 4, 2),
        ("doubled", nn.Conv2d, 3, 2),
    ],
)
def test_the_connector_of_each_ratio(case, kind, kernel, stride):
    layers = FitNet(golden.pair(case)).connector
    assert [type(layer) for layer in layers] == [kind, nn.BatchNorm2d, nn.ReLU]
    assert (layers[0].kernel_size, layers[0].stride) == ((kernel, kernel), (stride, stride))


def test_stages_count_from_one_and_end_with_the_last():
    assert [FitNet(golden.pair("equal"), stage=stage).stage for stage in (1, 2, 3, 4)] == [0, 1, 2, 2]
    with pytest.raises(InputError, match="count from 1"):
        FitNet(golden.pair("equal"), stage=0)
