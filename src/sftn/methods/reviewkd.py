"""ReviewKD: each level of the student answers for the teacher's at its depth and before (Chen et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shape
from sftn.runtime.collectives import world

POOLED = (4, 2, 1)
"""To which heights and widths maps are pooled, besides being compared as they are."""


@in_float32
def hierarchical_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of one level: squared errors of two (B, C, H, W) and of what they are pooled to, a weighted mean: a scalar.

    The map as it is weighs 1; each size of `POOLED` below its height half as much as the one before.
    """
    total, share, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in POOLED:
        if size < student.shape[2]:
            share /= 2
            weights += share
            ours, theirs = (F.adaptive_avg_pool2d(feature, size) for feature in (student, teacher))
            total = total + share * F.mse_loss(ours, theirs)
    return total / weights


class Level(nn.Module):
    """ABF: a student's feature fused with what comes from the deeper levels, and brought to the teacher's channels.

    Args:
        channels: of the student's feature.
        middle: of what goes on to the next level.
        target: (C, H, W) of the teacher's.
        attention: whether something comes from a deeper level.
    """

    def __init__(self, channels: int, middle: int, target: Shape, attention: bool) -> None:
        super().__init__()
        out, *self.size = target
        self.reduce = nn.Conv2d(channels, middle, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(middle)
        self.attention = nn.Conv2d(2 * middle, 2, 1) if attention else None
        self.expand = nn.Conv2d(middle, out, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(out)
        nn.init.kaiming_uniform_(self.reduce.weight, a=1)
        nn.init.kaiming_uniform_(self.expand.weight, a=1)

    def forward(self, feature: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, h, w), (B, M, ·, ·) -> what the next level is given, (B, M, H, W), and the result, (B, C', H, W)."""
        fused = _normalised(self.reduce_norm, self.reduce(feature))
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper.to(fused.dtype), fused.shape[-2:], mode="nearest")
            gates = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid()
            fused = fused * gates[:, :1] + deeper * gates[:, 1:]
        if list(fused.shape[-2:]) != self.size:
            fused = F.interpolate(fused, self.size, mode="nearest")
        return fused, _normalised(self.expand_norm, self.expand(fused))


def _normalised(norm: nn.BatchNorm2d, value: Tensor) -> Tensor:
    """Batch norm, also of a single number a channel, whose deviation from its mean is zero."""
    if norm.training and value.numel() == value.shape[1] and world() == 1:
        return norm.bias.view(1, -1, 1, 1) + 0 * value
    return norm(value)


class ReviewKD(Method):
    """Knowledge review (arXiv:2104.09044): ABF modules and the hierarchical context loss, summed over the levels.

    Reads the student's features (B, C, H, W), the teacher's pre-activations (B, C', H', W') and both embeddings
    (B, D), which are the deepest level, as maps of one pixel. From the deepest level up, a feature is reduced to
    M = min(512, D) channels, fused with what comes from the level below it by two learned attention maps, resized
    (nearest) to the teacher's map, handed on, and expanded to the teacher's channels. The stem is no level. The weight
    grows linearly over the first 20 of 240 epochs; the loss's weight is 5 for resnet32x4 to resnet8x4 and the pairs of
    WRNs, 8 for ShuffleNet V2, 1 for resnet110 to resnet32, 0.6 for resnet56 to resnet20.

    Deviations, mdistiller's: the teacher is in eval mode, where the authors' normalises by the batch, and the epoch of
    the warm-up counts from 1, where theirs counts from 0.

    Example:
        >>> method = ReviewKD(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; any map sizes.
        middle: M is at most as large.

    Raises:
        InputError: `middle` is not positive.
    """

    summary = "Distilling Knowledge via Knowledge Review (Chen et al., CVPR 2021)"
    reads = "the student's features, the teacher's pre-activations, the embeddings"
    source = "dvlab-research/ReviewKD"
    kd = 0.0
    weight = 5.0
    weight_warmup = 20 / 240
    teacher_outputs = ("embedding", "preacts")

    def __init__(self, pair: Pair, *, middle: int = 512) -> None:
        super().__init__(pair)
        require_positive("reviewkd", middle=middle)
        channels = min(middle, pair.student.embedding)
        self.pooled = Level(pair.student.embedding, channels, (pair.teacher.embedding, 1, 1), attention=False)
        for stage in reversed(range(len(pair.student.features))):
            ours, theirs = pair.student.features[stage], pair.teacher.features[stage]
            self.add_module(f"stage{stage}", Level(ours[0], channels, theirs, attention=True))

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The sum of the levels' losses, a scalar."""
        results = self.results(student)
        theirs = (*teacher.preacts, teacher.embedding[:, :, None, None])
        losses = [hierarchical_loss(ours, level.detach()) for ours, level in zip(results, theirs)]
        return torch.stack(losses).sum()

    def results(self, student: Activations) -> Sequence[Tensor]:
        """What is compared with the teacher's stages, in their order, and at last with its embedding."""
        deeper, pooled = in_own_dtype(self.pooled, student.embedding[:, :, None, None], None)
        found = [pooled]
        for stage in reversed(range(len(student.features))):
            level = self.get_submodule(f"stage{stage}")
            deeper, result = in_own_dtype(level, student.features[stage], deeper)
            found.insert(0, result)
        return found
