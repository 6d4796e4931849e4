"""MobileNetV2 (Sandler et al. 2018) of half width for CIFAR, as in the RepDistiller benchmark."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sftn.networks.families.layers import Head, Residual, Rules, Stage, Stem, conv_norm, fan_out_normal
from sftn.networks.staged import StagedNet

GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
"""(expansion, width, blocks, stride of the first block) of the paper's seven groups, with halved widths."""

STAGES = ((0, 1), (2,), (3, 4), (5, 6))
"""Groups that make up each stage."""


def _block_keys() -> Rules:
    rules = []
    for stage, groups in enumerate(STAGES):
        places = [(group, block) for group in groups for block in range(GROUPS[group][2])]
        for place, (group, block) in enumerate(places):
            rules.append((rf"^blocks\.{group}\.{block}\.conv\.", f"stages.{stage}.blocks.{place}.body."))
    return tuple(rules)


KEYS: Rules = (
    (r"^conv1\.", "stem.body."),
    *_block_keys(),
    (r"^conv2\.", "head.body."),
    (r"^classifier\.0\.", "head.linear."),
)
"""Rules for RepDistiller's key names."""


def mobilenetv2(classes: int, channels: int = 3) -> StagedNet:
    """MobileNetV2, half width, expansion 6; taps of 32×32 images: 16×16, 8×8, 4×4, 2×2.

    Its blocks are linear: a stage has no closing ReLU, so feature and preact are the same. The closing norms are
    nevertheless those that the benchmark names, the last norm of each last block.
    """
    width = 16
    stages: list[nn.Module] = []
    for groups in STAGES:
        blocks = []
        for expansion, out, depth, stride in (GROUPS[group] for group in groups):
            for k in range(depth):
                blocks.append(_inverted(width, out, expansion, 1 if k else stride))
                width = out
        stages.append(Stage(*blocks, closing=nn.Identity()))
    head = Head(1280, classes, *conv_norm(width, 1280, 1), nn.ReLU())
    nn.init.normal_(head.linear.weight, std=0.01)
    nn.init.zeros_(head.linear.bias)
    network = StagedNet(Stem(*conv_norm(channels, 16, 3, 2), nn.ReLU()), stages, head, "mobilenetv2")
    fan_out_normal(network)
    return network


def _inverted(channels: int, width: int, expansion: int, stride: int) -> Residual:
    """1×1 up, depthwise 3×3, 1×1 down without an activation; added to its input if the shape is unchanged."""
    inner = channels * expansion
    body = nn.Sequential(
        *conv_norm(channels, inner, 1),
        nn.ReLU(),
        *conv_norm(inner, inner, 3, stride, inner),
        nn.ReLU(),
        *conv_norm(inner, width, 1),
    )
    return Residual(body, nn.Identity() if stride == 1 and channels == width else None)


NETWORKS: dict[str, Callable[..., StagedNet]] = {"mobilenetv2": mobilenetv2}
