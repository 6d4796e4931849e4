import math

import pytest
import torch
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.methods.vid import VID, information_loss
from tests.support import golden_methods as golden


def golden_method(case, dtype):
    """The method with the golden parameters, and the golden values of its three stages."""
    method = VID(golden.pair(case)).to(dtype)
    stages = [golden.load(case, f"vid_stage{k}", dtype) for k in range(3)]
    for predictor, values in zip(method.stages, stages):
        names = {"regressor.0.weight": "conv0", "regressor.2.weight": "conv1", "regressor.4.weight": "conv2"}
        state = {name: values[conv] for name, conv in names.items()}
        predictor.load_state_dict({**state, "log_scale": values["log_scale"]})
    return method, stages


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    method, stages = golden_method(case, dtype)
    features = tuple(golden.leaf(values["student_feature"]) for values in stages)
    for predictor, feature, values in zip(method.stages, features, stages):
        assert predictor.eps == float(golden.load(case, "vid_stage0")["eps"])
        loss = predictor(feature, values["teacher_feature"])
        golden.assert_golden(loss, values["loss"], dtype)

    student, teacher = golden.both(method, 1)
    student = student._replace(features=features)
    teacher = teacher._replace(features=tuple(values["teacher_feature"] for values in stages))
    loss = method(student, teacher, golden.batch(1))
    loss.backward()
    golden.assert_golden(loss, torch.stack([values["loss"] for values in stages]).sum(), dtype)
    for predictor, feature, values in zip(method.stages, features, stages):
        golden.assert_golden(feature.grad, values["grad_student"], dtype)
        golden.assert_golden(predictor.log_scale.grad, values["grad_log_scale"], dtype)


def test_slow_reference():
    draw = torch.Generator().manual_seed(0)
    mean, teacher = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64, generator=draw)
    log_scale = torch.randn(4, dtype=torch.float64, generator=draw) * 3
    total = 0.0
    for b in range(3):
        for c in range(4):
            variance = math.log(1 + math.exp(log_scale[c])) + 1e-5
            for m, t in zip(mean[b, c].flatten().tolist(), teacher[b, c].flatten().tolist()):
                total += 0.5 * ((m - t) ** 2 / variance + math.log(variance))
    assert information_loss(mean, teacher, log_scale).item() == pytest.approx(total / 48, rel=1e-12)


@pytest.mark.parametrize("variance", [0.3, 5.0])
def test_the_variance_starts_where_it_is_told(variance):
    predictor = VID(golden.pair("equal"), variance=variance).double().stages[1]
    first = F.softplus(predictor.log_scale) + predictor.eps
    torch.testing.assert_close(first, torch.full((32,), variance, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_best_variance_is_the_mean_squared_error():
    mean, teacher = torch.randn(2, 8, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    best = (mean - teacher).square().mean((0, 2, 3)) - 1e-5
    log_scale = golden.leaf(torch.log(torch.expm1(best)))
    loss = information_loss(mean, teacher, log_scale)
    loss.backward()
    assert log_scale.grad.abs().max() < 1e-12
    assert information_loss(mean, teacher, log_scale + 0.1) > loss
    assert information_loss(mean, teacher, log_scale - 0.1) > loss


@pytest.mark.parametrize(("variance", "eps"), [(1e-6, 1e-5), (5.0, 0.0), (-1.0, 1e-5)])
def test_bad_variances(variance, eps):
    with pytest.raises(InputError, match="eps"):
        VID(golden.pair("equal"), variance=variance, eps=eps)
