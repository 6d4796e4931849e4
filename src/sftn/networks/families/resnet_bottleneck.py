"""The four-stage ResNets 18 to 152 (He et al. 2016), with RepDistiller's CIFAR stem or the ImageNet stem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from sftn.networks.families.layers import Head, Residual, Stem, conv_norm, fan_out_normal
from sftn.networks.families.resnet import KEYS as KEYS
from sftn.networks.families.resnet import basic, residual_stage, shortcut
from sftn.networks.staged import StagedNet


def bottleneck(channels: int, width: int, stride: int = 1) -> Residual:
    """1×1, 3×3 (with the stride, as in torchvision) and 1×1 convolutions; the inner ones have width / 4 channels."""
    inner = width // 4
    body = nn.Sequential(
        *conv_norm(channels, inner, 1),
        nn.ReLU(),
        *conv_norm(inner, inner, 3, stride),
        nn.ReLU(),
        *conv_norm(inner, width, 1),
    )
    return Residual(body, shortcut(channels, width, stride))


def deep_resnet(
    name: str, depths: tuple[int, ...], classes: int, channels: int = 3, *, bottlenecks: bool, imagenet: bool
) -> StagedNet:
    """A four-stage ResNet; taps of 32×32 images with the CIFAR stem: 32×32, 16×16, 8×8, 4×4.

    Args:
        name: its name in tables and files.
        depths: blocks per stage.
        classes: K.
        channels: channels of the images.
        bottlenecks: three-layer blocks of 256 to 2048 channels instead of two-layer ones of 64 to 512.
        imagenet: a 7×7 stem of stride 2 with a max pool (torchvision's network) instead of a 3×3 one of stride 1.
    """
    stem = Stem(*conv_norm(channels, 64, 3), nn.ReLU())
    if imagenet:
        stem = Stem(*conv_norm(channels, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
    block, expansion = (bottleneck, 4) if bottlenecks else (basic, 1)
    widths = [64 * expansion * 2**k for k in range(4)]
    network = StagedNet(
        stem,
        [
            residual_stage(block, before, width, depth, stride)
            for before, width, depth, stride in zip([64, *widths], widths, depths, (1, 2, 2, 2))
        ],
        Head(widths[-1], classes),
        name,
    )
    fan_out_normal(network)
    return network


_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

NETWORKS: dict[str, Callable[..., StagedNet]] = {
    f"{prefix}resnet{depth}": partial(
        deep_resnet, f"{prefix}resnet{depth}", blocks, bottlenecks=depth >= 50, imagenet=bool(prefix)
    )
    for prefix in ("", "imagenet_")
    for depth, blocks in _DEPTHS.items()
}
