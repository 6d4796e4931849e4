"""The CIFAR ResNets: three stages of basic blocks (He et al. 2016), with the widths of the RepDistiller benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from sftn.networks.families.layers import Head, Residual, Rules, Stage, Stem, conv_norm, fan_out_normal
from sftn.networks.staged import StagedNet

KEYS: Rules = (
    (r"^conv1\.", "stem.body.0."),
    (r"^bn1\.", "stem.body.1."),
    *((rf"^layer{k + 1}\.", f"stages.{k}.blocks.") for k in range(4)),
    *((rf"\.conv{k + 1}\.", f".body.{3 * k}.") for k in range(3)),
    *((rf"\.bn{k + 1}\.", f".body.{3 * k + 1}.") for k in range(3)),
    (r"\.downsample\.", ".shortcut."),
    (r"^(fc|linear)\.", "head.linear."),
)
"""Rules for the key names of RepDistiller and torchvision, for basic and bottleneck blocks."""


def basic(channels: int, width: int, stride: int = 1) -> Residual:
    """Two 3×3 convolutions from `channels` to `width`; a 1×1 shortcut if the shape changes."""
    body = nn.Sequential(*conv_norm(channels, width, 3, stride), nn.ReLU(), *conv_norm(width, width, 3))
    return Residual(body, shortcut(channels, width, stride))


def shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """The identity, or a 1×1 convolution with batch norm if the shape changes."""
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(*conv_norm(channels, width, 1, stride))


def residual_stage(
    block: Callable[[int, int, int], Residual], channels: int, width: int, depth: int, stride: int
) -> Stage:
    """`depth` blocks; the first goes from `channels` to `width` and divides the map's size by `stride`."""
    return Stage(block(channels, width, stride), *(block(width, width, 1) for _ in range(depth - 1)))


def resnet(name: str, depth: int, widths: tuple[int, int, int, int], classes: int, channels: int = 3) -> StagedNet:
    """A CIFAR ResNet of 6n + 2 layers; taps of 32×32 images: 32×32, 16×16, 8×8.

    Args:
        name: its name in tables and files.
        depth: 6n + 2, for n blocks per stage.
        widths: channels of the stem and of the three stages.
        classes: K.
        channels: channels of the images.
    """
    stem, *stages = widths
    network = StagedNet(
        Stem(*conv_norm(channels, stem, 3), nn.ReLU()),
        [
            residual_stage(basic, before, width, (depth - 2) // 6, stride)
            for before, width, stride in zip(widths, stages, (1, 2, 2))
        ],
        Head(widths[-1], classes),
        name,
    )
    fan_out_normal(network)
    return network


_THIN, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)

NETWORKS: dict[str, Callable[..., StagedNet]] = {
    **{f"resnet{depth}": partial(resnet, f"resnet{depth}", depth, _THIN) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(resnet, f"resnet{depth}x4", depth, _WIDE) for depth in (8, 32)},
    # Table 14 names it, but no public benchmark has it: twice resnet8's widths after resnet8's stem is our reading.
    "resnet8x2": partial(resnet, "resnet8x2", 8, (16, 32, 64, 128)),
}
