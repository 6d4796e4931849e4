"""ShuffleNet (Zhang et al. 2018) and ShuffleNet V2 (Ma et al. 2018) for CIFAR, as in the RepDistiller benchmark."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sftn.networks.families.layers import Head, Residual, Rules, Stage, Stem, conv_norm
from sftn.networks.staged import StagedNet

_ENDS: Rules = (
    (r"^conv1\.", "stem.body.0."),
    (r"^bn1\.", "stem.body.1."),
    *((rf"^layer{k + 1}\.", f"stages.{k}.blocks.") for k in range(3)),
    (r"^conv2\.", "head.body.0."),
    (r"^bn2\.", "head.body.1."),
    (r"^linear\.", "head.linear."),
)

KEYS: dict[str, Rules] = {
    "shufflev1": (
        *_ENDS,
        *((rf"\.conv{k + 1}\.", f".body.{place}.") for k, place in enumerate((0, 4, 7))),
        *((rf"\.bn{k + 1}\.", f".body.{place}.") for k, place in enumerate((1, 5, 8))),
    ),
    "shufflev2": (
        *_ENDS,
        # In the first block of a stage the numbering covers both branches; other blocks have only the second.
        *((rf"(\.blocks\.0)\.conv{k}\.", rf"\1.left.{place}.") for k, place in ((1, 0), (2, 2))),
        *((rf"(\.blocks\.0)\.bn{k}\.", rf"\1.left.{place}.") for k, place in ((1, 1), (2, 3))),
        *((rf"(\.blocks\.0)\.conv{k}\.", rf"\1.right.{place}.") for k, place in ((3, 0), (4, 3), (5, 5))),
        *((rf"(\.blocks\.0)\.bn{k}\.", rf"\1.right.{place}.") for k, place in ((3, 1), (4, 4), (5, 6))),
        *((rf"\.conv{k}\.", f".right.{place}.") for k, place in ((1, 0), (2, 3), (3, 5))),
        *((rf"\.bn{k}\.", f".right.{place}.") for k, place in ((1, 1), (2, 4), (3, 6))),
    ),
}
"""Rules for RepDistiller's key names."""


class Shuffle(nn.Module):
    """Interleave the channels of the `groups` of a (B, C, H, W) map."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, flow: Tensor) -> Tensor:
        """Reorder the channels and keep the memory format, because changing it would slow down all later layers."""
        if flow.is_contiguous(memory_format=torch.channels_last):
            pixels = flow.permute(0, 2, 3, 1)
            return pixels.unflatten(3, (self.groups, -1)).transpose(3, 4).flatten(3, 4).permute(0, 3, 1, 2)
        return flow.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Show the groups."""
        return f"groups={self.groups}"


class Growing(nn.Module):
    """V1's first block of a stage: channels of the strided body, then of the pooled input, before the ReLU."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, flow: Tensor) -> Tensor:
        """Compute the block: (B, C, H, W) -> (B, D, H/2, W/2)."""
        return torch.cat((self.body(flow), self.pool(flow)), 1)


class Split(nn.Module):
    """V2's block: half of the channels pass unchanged (or through the strided `left`), the others through `right`.

    Ends before its closing ReLU and shuffle. Rectifying the unchanged half has no effect, not even on gradients,
    because it is the output of a ReLU.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half, stride = width // 2, 1 if channels == width else 2
        self.left = None
        if stride == 2:
            left = [*conv_norm(channels, channels, 3, stride, channels), *conv_norm(channels, half, 1), nn.ReLU()]
            self.left = nn.Sequential(*left)
        self.right = nn.Sequential(
            *conv_norm(half if self.left is None else channels, half, 1),
            nn.ReLU(),
            *conv_norm(half, half, 3, stride, half),
            *conv_norm(half, half, 1),
        )

    def forward(self, flow: Tensor) -> Tensor:
        """Compute the block: (B, C, H, W) -> (B, D, H', W')."""
        kept, moved = flow.chunk(2, dim=1) if self.left is None else (self.left(flow), flow)
        return torch.cat((kept, self.right(moved)), 1)


def shufflev1(classes: int, channels: int = 3) -> StagedNet:
    """ShuffleNet, 3 groups, widths 240, 480, 960; taps of 32×32 images: 16×16, 8×8, 4×4.

    The closing norms are those of the last blocks' bodies, as in ResNets; the benchmark names none.
    """
    stages: list[nn.Module] = []
    before = 24
    for width, depth in ((240, 4), (480, 8), (960, 4)):
        # The very first grouped convolution has too few channels for groups (Zhang et al., section 3.2).
        first = Growing(_grouped(before, width - before, stride=2, groups=1 if before == 24 else 3))
        rest = (Residual(_grouped(width, width), nn.Identity()) for _ in range(depth - 1))
        stages.append(Stage(first, *rest))
        before = width
    return StagedNet(Stem(*conv_norm(channels, 24, 1), nn.ReLU()), stages, Head(before, classes), "shufflev1")


def shufflev2(classes: int, channels: int = 3) -> StagedNet:
    """ShuffleNet V2 1×, widths 116, 232, 464 and 1024 in the head; taps of 32×32 images: 16×16, 8×8, 4×4.

    A preact has the channels in the order before the shuffle, as in the benchmark. There are no closing norms, because
    half of the channels bypass the last one.
    """
    stages: list[nn.Module] = []
    before = 24
    for width, depth in ((116, 4), (232, 8), (464, 4)):
        blocks = [Split(before, width), *(Split(width, width) for _ in range(depth - 1))]
        stages.append(Stage(*blocks, closing=nn.Sequential(nn.ReLU(), Shuffle(2))))
        before = width
    stem = Stem(*conv_norm(channels, 24, 1), nn.ReLU())
    return StagedNet(stem, stages, Head(1024, classes, *conv_norm(before, 1024, 1), nn.ReLU()), "shufflev2")


def _grouped(channels: int, width: int, *, stride: int = 1, groups: int = 3) -> nn.Sequential:
    """V1's body: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; `groups` belongs to the first convolution."""
    inner = width // 4
    return nn.Sequential(
        *conv_norm(channels, inner, 1, groups=groups),
        nn.ReLU(),
        Shuffle(groups),
        *conv_norm(inner, inner, 3, stride, groups=inner),
        nn.ReLU(),
        *conv_norm(inner, width, 1, groups=3),
    )


NETWORKS: dict[str, Callable[..., StagedNet]] = {"shufflev1": shufflev1, "shufflev2": shufflev2}
