import math

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.methods import CATKD
from sftn.methods.catkd import activation_map_loss, activation_maps
from sftn.networks import build
from sftn.networks.alignment import Pair
from sftn.networks.staged import StagedNet
from tests.support import golden_methods as golden

IMAGE = (3, 32, 32)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "catkd", dtype)
    student = golden.leaf(values["student_cam"])
    how = {name: int(values[name]) for name in ("resolution", "normalise", "binarise")}
    loss = activation_map_loss(student, values["teacher_cam"], **how)
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(student.grad, values["grad_student"], dtype)


def slow(student, teacher, normalise, binarise):
    """One class of one image, 4×4 pixels pooled to 2×2: squared differences of block means."""

    def pooled(rows):
        found = [sum(rows[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)) / 4 for i in (0, 1) for j in (0, 1)]
        length = math.hypot(*found) if normalise else 1
        return [value / length for value in found]

    if binarise:
        mean = sum(abs(value) for row in teacher for value in row) / 16
        teacher = [[float(value > mean) for value in row] for row in teacher]
    return sum((a - b) ** 2 for a, b in zip(pooled(student), pooled(teacher))) / 4


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("binarise", [False, True])
def test_slow_reference(normalise, binarise):
    student, teacher = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = slow(student.tolist(), teacher.tolist(), normalise, binarise)
    found = activation_map_loss(student[None, None], teacher[None, None], 2, normalise, binarise)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def attached(student, teacher, **options):
    pair = Pair.of(teacher, student, IMAGE, torch.zeros(4, dtype=torch.long))
    method = CATKD(pair, **options)
    method.attach(student, teacher, IMAGE)
    return method


@pytest.mark.parametrize(
    "names", [("resnet8", "wrn_10_1"), ("wrn_10_2", "resnet8x4"), ("mobilenetv2", "vgg8"), ("shufflev2", "resnet8")]
)
def test_the_mean_of_a_students_maps_are_its_logits_without_the_bias(names, monkeypatch):
    student, teacher = (build(name, 10) for name in names)
    method = attached(student.train(), teacher.eval())
    images = torch.randn(4, *IMAGE)
    ours, theirs = student.activations(images), teacher.activations(images)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    seen = []
    monkeypatch.setattr(
        "sftn.methods.catkd.activation_maps", lambda *given: seen.append(activation_maps(*given)) or seen[-1]
    )
    loss = method(ours, theirs, golden.batch(4))
    for network, maps, activations in zip((student, teacher), seen, (ours, theirs)):
        (layer,) = (module for module in network.head.modules() if isinstance(module, nn.Linear))
        torch.testing.assert_close(maps.mean((2, 3)) + layer.bias, activations.logits, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert student.head.linear.weight.grad.any()
    assert all(value.grad is None for value in teacher.parameters())
    after = student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "statistics have moved"
    assert list(method.state_dict()) == ["teacher_weight"]


@pytest.mark.parametrize("kind", ["zero", "identical", "large"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hostile_maps_give_finite_gradients(kind, dtype):
    for size in (1, 3):
        for classes in (2, 10):
            given = torch.randn(size, classes, 4, 4)
            given = {"zero": 0 * given, "identical": given[:1].expand_as(given), "large": given.sign() * 1e4}[kind]
            for normalise in (False, True):
                student = golden.leaf(given.to(dtype))
                loss = activation_map_loss(student, torch.randn(size, classes, 4, 4), normalise=normalise)
                loss.backward()
                assert loss.isfinite()
                assert loss.dtype == torch.float32
                assert student.grad.isfinite().all()


def test_what_cannot_be_read_is_refused():
    with pytest.raises(InputError, match="teacher whose head is a classifier alone"):
        attached(build("resnet8", 10), build("mobilenetv2", 10))
    network = build("resnet8", 10)
    network.head = Last(network.head)
    assert isinstance(network, StagedNet)
    with pytest.raises(InputError, match="classifier of the averaged last map"):
        attached(network, build("resnet8", 10))
    with pytest.raises(InputError, match="catkd's resolution"):
        CATKD(golden.pair("equal"), resolution=0)


class Last(nn.Module):
    """Classifies the largest pixel of a map."""

    def __init__(self, head):
        super().__init__()
        self.linear = head.linear

    def forward(self, flow):
        embedding = flow.amax((2, 3))
        return embedding, self.linear(embedding)
