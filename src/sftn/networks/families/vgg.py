"""VGG with batch norm and one linear layer (Simonyan & Zisserman 2015), as in RepDistiller and Tables 20 and 21."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from sftn.networks.families.layers import Head, Rules, Stage, Stem, fan_out_normal
from sftn.networks.staged import StagedNet

KEYS: Rules = (
    (r"^block0\.", "stem.body."),
    *((rf"^block{k + 1}\.", f"stages.{k}.blocks.0.body.") for k in range(4)),
    (r"^classifier\.", "head.linear."),
)
"""Rules for RepDistiller's key names."""

WIDTHS = (64, 128, 256, 512, 512)


class Block(nn.Module):
    """A 2×2 max pool (unless `pool` is false) and `depth` 3×3 convolutions; ends before the last ReLU."""

    def __init__(self, channels: int, width: int, depth: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.body = nn.Sequential(*_layers(channels, width, depth)[:-1])

    def forward(self, flow: Tensor) -> Tensor:
        """Compute the block: (B, C, H, W) -> (B, D, H', W')."""
        out: Tensor = self.body(self.pool(flow))
        return out

    @property
    def closing_norm(self) -> nn.BatchNorm2d:
        """The last convolution's batch norm."""
        norm = self.body[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


def vgg(
    name: str, depths: tuple[int, ...], classes: int, channels: int = 3, image: tuple[int, ...] = (32, 32)
) -> StagedNet:
    """A VGG with a stem and four stages; taps of 32×32 images: 16×16, 8×8, 4×4, 4×4.

    The stem is the first group of convolutions (Table 20's first block is the stem and stage 1); a stage begins with
    the pool. The last stage pools only for images of 64 pixels and more; the benchmark does so at exactly 64.

    Args:
        name: its name in tables and files.
        depths: numbers of convolutions in the stem and the four stages.
        classes: K.
        channels: channels of the images.
        image: (H, W) or (C, H, W) of the intended images.
    """
    stages: list[nn.Module] = [
        Stage(Block(before, width, depth, pool=k < 3 or image[-2] >= 64))
        for k, (before, width, depth) in enumerate(zip(WIDTHS, WIDTHS[1:], depths[1:]))
    ]
    head = Head(WIDTHS[-1], classes)
    nn.init.normal_(head.linear.weight, std=0.01)
    nn.init.zeros_(head.linear.bias)
    network = StagedNet(Stem(*_layers(channels, WIDTHS[0], depths[0])), stages, head, name)
    fan_out_normal(network)
    return network


def _layers(channels: int, width: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for k in range(depth):
        conv = nn.Conv2d(width if k else channels, width, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
    return layers


_DEPTHS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

NETWORKS: dict[str, Callable[..., StagedNet]] = {
    f"vgg{layers}": partial(vgg, f"vgg{layers}", depths) for layers, depths in _DEPTHS.items()
}
