"""The layer between two feature maps."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sftn.networks.connector import Resize, connector
from sftn.networks.staged import Shape

SIZES = [
    ((8, 8, 8), (12, 8, 8)),
    ((8, 16, 16), (12, 8, 8)),
    ((8, 24, 24), (12, 8, 8)),
    ((8, 32, 32), (12, 8, 8)),
    ((8, 8, 8), (12, 16, 16)),
    ((8, 5, 5), (12, 15, 15)),
    ((8, 4, 4), (12, 16, 16)),
    ((8, 4, 6), (12, 8, 12)),
    ((8, 7, 7), (12, 4, 4)),
    ((8, 4, 4), (12, 7, 7)),
    ((8, 16, 8), (12, 8, 8)),
    ((8, 1, 1), (12, 4, 4)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_every_size_becomes_every_other(source: Shape, target: Shape) -> None:
    layer = connector(source, target)
    out = layer(torch.randn(3, *source))
    assert out.shape == (3, *target)
    assert out.min() >= 0
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("source", "target", "kind", "kernel", "stride", "padding"),
    [
        ((8, 8, 8), (12, 8, 8), nn.Conv2d, 1, 1, 0),
        ((8, 16, 16), (12, 8, 8), nn.Conv2d, 3, 2, 1),
        ((8, 8, 8), (12, 16, 16), nn.ConvTranspose2d, 4, 2, 1),
    ],
)
def test_the_papers_three_cases(
    source: Shape, target: Shape, kind: type[nn.Module], kernel: int, stride: int, padding: int
) -> None:
    conv, norm, relu = connector(source, target)
    assert isinstance(conv, kind)
    assert conv.kernel_size == (kernel, kernel)
    assert conv.stride == (stride, stride)
    assert conv.padding == (padding, padding)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)


def test_without_a_relu_it_ends_with_the_norm() -> None:
    layer = connector((8, 8, 8), (12, 8, 8), relu=False)
    assert isinstance(layer[-1], nn.BatchNorm2d)
    assert layer(torch.randn(3, 8, 8, 8)).min() < 0


def test_resizing_averages_down_and_interpolates_up() -> None:
    feature = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(Resize((2, 2))(feature), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert torch.equal(Resize((4, 4))(feature), feature)
    up = Resize((8, 8))(feature)
    assert torch.equal(up, F.interpolate(feature, (8, 8), mode="bilinear", align_corners=False))
    assert up.max() == 15
