"""OH: pre-activations through a margin ReLU (Heo et al., 2019, arXiv:1904.01866)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.at import same_size
from sftn.methods.base import Method, in_float32, in_own_dtype
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations


class OH(Method):
    """Match the teacher's pre-activations through a margin ReLU, forgiving a student that is negative where it is.

    The overhaul of feature distillation (arXiv:1904.01866). Reads the pre-activations of all stages, (B, C, H, W) and
    (B, C', H', W'). A 1×1 convolution without bias and a batch norm bring each student stage to the teacher's channels.
    The teacher's pre-activation is cut from below at a margin for each channel, the mean of its negative values, which
    its closing batch norm tells. The partial L2 distance counts an element only where the target is positive or the
    student lies above it.

    The teacher must normalise by the batch's own statistics (`batch_statistics`). The margins are those of the teacher
    as it is when this is built. The division by 1000 is the authors' for CIFAR; theirs for ImageNet is by 10000, a
    weight of 0.1 here.

    Deviation: of two maps of unlike size the larger is average-pooled to the smaller, a teacher's before it is cut, as
    in mdistiller; the authors' networks (clovaai/overhaul-distillation) have equal maps.

    Example:
        >>> method = OH(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; the teacher's stages close with a batch norm.

    Raises:
        InputError: an aligned teacher stage has no closing batch norm.
    """

    summary = "A Comprehensive Overhaul of Feature Distillation (Heo et al., ICCV 2019)"
    reads = "the pre-activations of all stages and the teacher's closing batch norms"
    source = "clovaai/overhaul-distillation"
    batch_statistics = True

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.connectors = nn.ModuleList()
        for stage, (ours, theirs, norm) in enumerate(
            zip(pair.student.features, pair.teacher.features, pair.closing_norms)
        ):
            if norm is None:
                raise InputError(
                    f"OH takes its margins from batch norms, and teacher stage {pair.alignment[stage][1] + 1} closes "
                    "without one: name it in the stage's `closing_norm`, align other stages, or choose another method"
                )
            self.connectors.append(_connector(ours[0], theirs[0]))
            self.register_buffer(f"margin{stage}", norm_margin(norm))

    @property
    def margins(self) -> tuple[Tensor, ...]:
        """(C,) of each stage."""
        return tuple(self.get_buffer(f"margin{stage}") for stage in range(len(self.connectors)))

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The weighted sum of the stages' partial L2 distances ÷ batch ÷ 1000."""
        ours = [in_own_dtype(connector, preact) for connector, preact in zip(self.connectors, student.preacts)]
        return overhaul(ours, teacher.preacts, self.margins)


@in_float32
def overhaul(student: Sequence[Tensor], teacher: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """The partial L2 loss of n stages: stage i (from 0) weighs ½^(n-i-1), all is divided by B and by 1000.

    Args:
        student: connected pre-activations, (B, C, H, W) a stage.
        teacher: the teacher's, (B, C, H', W') a stage; no gradient reaches them.
        margins: (C,) a stage.
    """
    stages, total = len(student), student[0].new_zeros(())
    for stage, (ours, theirs, margin) in enumerate(zip(student, teacher, margins)):
        total = total + partial_l2(*same_size(ours, theirs.detach()), margin) / 2 ** (stages - stage - 1)
    return total / (len(student[0]) * 1000)


def partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """(B, C, H, W) twice and (C,) -> scalar: squared distances, summed where student > target or target > 0."""
    target = torch.maximum(teacher, margin.view(-1, 1, 1))
    excess = student - target
    return torch.where((excess > 0) | (target > 0), excess, 0).square().sum()


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """(C,) batch norm weight and bias -> (C,): the mean of the negative part of a normal N(bias, weight²).

    Where less than 0.001 of it is negative, -3·|weight| instead, as the authors' code has it. In float64, and finite
    for any finite weight and bias: where |weight| vanishes this is min(bias, 0).
    """
    deviation, mean = weight.detach().double().abs(), bias.detach().double()
    # Beyond 40 deviations the density is below 1e-340: clamping changes nothing and keeps 0/0 and ∞ away.
    z = (mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)).clamp(-40, 40)
    log_density = -z.square() / 2 - math.log(math.sqrt(2 * math.pi))
    log_negative = torch.special.log_ndtr(-z)
    truncated = mean - deviation * (log_density - log_negative).exp()
    return torch.where(log_negative > math.log(0.001), truncated, -3 * deviation)


def norm_margin(norm: nn.BatchNorm2d) -> Tensor:
    """(C,) float32: the margins of a batch norm, one without weight and bias counting as 1 and 0."""
    weight = torch.ones(norm.num_features) if norm.weight is None else norm.weight
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias
    return margin(weight, bias).float()


def _connector(channels: int, out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out))
