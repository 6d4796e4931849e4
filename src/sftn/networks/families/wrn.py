"""Wide residual networks (Zagoruyko & Komodakis 2016), pre-activation, as in the RepDistiller benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.families.layers import Head, Rules, Stem, fan_out_normal
from sftn.networks.staged import StagedNet, Tap

KEYS: Rules = (
    (r"^conv1\.", "stem.body.0."),
    (r"^block2\.layer\.0\.bn1\.", "stages.0.closing_norm."),
    (r"^block3\.layer\.0\.bn1\.", "stages.1.closing_norm."),
    (r"^bn1\.", "stages.2.closing_norm."),
    *((rf"^block{k + 1}\.layer\.", f"stages.{k}.blocks.") for k in range(3)),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.convShortcut\.", ".shortcut."),
    (r"^fc\.", "head.linear."),
)
"""Rules for RepDistiller's key names; the batch norm that opens a group there closes the previous stage here."""


class Block(nn.Module):
    """Norm, ReLU, 3×3, norm, ReLU, 3×3, plus the input, or if the width changes plus a 1×1 of the activated input.

    Args:
        channels: channels of the input.
        width: channels of the output.
        stride: stride of the first convolution and the shortcut.
        activated: whether the previous stage has already normalised and rectified the input.
    """

    def __init__(self, channels: int, width: int, stride: int = 1, *, activated: bool = False) -> None:
        super().__init__()
        self.norm1 = None if activated else nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = None if channels == width else nn.Conv2d(channels, width, 1, stride=stride, bias=False)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, flow: Tensor) -> Tensor:
        """Compute the block: (B, C, H, W) -> (B, D, H', W'), not activated."""
        active = flow if self.norm1 is None else self.relu1(self.norm1(flow))
        out: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(active))))
        return out + (flow if self.shortcut is None else self.shortcut(active))


class Stage(nn.Module):
    """Blocks, and the batch norm and ReLU that open the next stage (after the last stage, the network's final ones).

    The tap's feature is the blocks' raw output, its preact that after the batch norm and its flow the preact's ReLU.
    The next stage changes the width, so its first block reads only the flow and the batch norm can be placed here.
    """

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.closing_norm = nn.BatchNorm2d(blocks[-1].conv2.out_channels)
        self.relu = nn.ReLU()

    def forward(self, flow: Tensor) -> Tap:
        """Compute the tap."""
        feature = self.blocks(flow)
        preact = self.closing_norm(feature)
        return Tap(feature, preact, self.relu(preact))


def wrn(depth: int, width: int, classes: int, channels: int = 3) -> StagedNet:
    """WRN-depth-width; taps of 32×32 images: 32×32, 16×16, 8×8. The stem's tap is the bare first convolution.

    Args:
        depth: 6n + 4, for n blocks per stage.
        width: factor of the widths 16, 32, 64.
        classes: K.
        channels: channels of the images.

    Raises:
        InputError: no network of the family has that depth.
    """
    if depth < 10 or depth % 6 != 4:
        raise InputError(f"wrn_{depth}_{width} does not exist: the depth must be 6n + 4, such as 10, 16, 22, 28 or 40")
    widths = [16, 16 * width, 32 * width, 64 * width]
    stages: list[nn.Module] = []
    for k, (before, after) in enumerate(pairwise(widths)):
        first = Block(before, after, 2 if k else 1, activated=k > 0)
        stages.append(Stage(first, *(Block(after, after) for _ in range((depth - 4) // 6 - 1))))
    head = Head(widths[-1], classes)
    nn.init.zeros_(head.linear.bias)
    stem = Stem(nn.Conv2d(channels, widths[0], 3, padding=1, bias=False))
    network = StagedNet(stem, stages, head, f"wrn_{depth}_{width}")
    fan_out_normal(network)
    return network


NETWORKS: dict[str, Callable[..., StagedNet]] = {
    # The benchmark has 16 and 40 layers; the family's smallest networks are for quick trials.
    f"wrn_{depth}_{width}": partial(wrn, depth, width)
    for depth in (10, 16, 40)
    for width in (1, 2)
}
