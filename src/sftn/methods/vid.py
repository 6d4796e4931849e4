"""VID: how much of the teacher the student can predict (Ahn et al., 2019, arXiv:1904.05835)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.at import same_size
from sftn.methods.base import Method, in_float32, in_own_dtype
from sftn.methods.options import check
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations


@in_float32
def information_loss(mean: Tensor, teacher: Tensor, log_scale: Tensor, eps: float = 1e-5) -> Tensor:
    """Negative log-likelihood of the teacher under a Gaussian, without its constant, the mean over all elements.

    Args:
        mean: (B, C, H, W), what the student predicts.
        teacher: (B, C, H, W)
        log_scale: (C,); a channel's variance is softplus(log_scale) + eps.
        eps: the least variance.
    """
    variance = F.softplus(log_scale) + eps
    error = (mean - teacher).square().mean((0, 2, 3))
    return 0.5 * (error / variance + variance.log()).mean()


class Predictor(nn.Module):
    """Three 1×1 convolutions that predict a teacher's feature of C' channels from a student's of C."""

    def __init__(self, source: int, target: int, variance: float, eps: float) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            nn.Conv2d(source, target, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(target, target, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(target, target, 1, bias=False),
        )
        self.log_scale = nn.Parameter(torch.full((target,), math.log(math.expm1(variance - eps))))
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C', H', W') -> a scalar; the larger map is averaged down to the smaller."""
        student, teacher = same_size(student, teacher)
        return information_loss(in_own_dtype(self.regressor, student), teacher, self.log_scale, self.eps)


class VID(Method):
    """Variational information distillation (arXiv:1904.05835), summed over the stages; the variances are trained.

    Reads the features of all stages, (B, C, H, W) and (B, C', H', W').

    Deviations, all RepDistiller's: three convolutions as wide as the teacher without batch norm in between, no term for
    the logits, and a mean over all elements where the paper sums over C', H' and W', so that a stage weighs
    1/(C'·H'·W'); `vid(reduction=sum)` sums.

    Example:
        >>> method = VID(pair, variance=5.0)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; any map sizes.
        variance: of every channel before training.
        eps: the least variance.
        reduction: over the elements of an image's map: `mean` (RepDistiller) or `sum` (the paper).

    Raises:
        InputError: `variance` is not above `eps`, `eps` is not positive, or the reduction is neither.
    """

    summary = "Variational Information Distillation for Knowledge Transfer (Ahn et al., CVPR 2019)"
    reads = "the features of all stages"
    source = "RepDistiller"

    def __init__(
        self, pair: Pair, *, variance: float = 5.0, eps: float = 1e-5, reduction: Literal["mean", "sum"] = "mean"
    ) -> None:
        super().__init__(pair)
        check("vid", VID, {"reduction": reduction})
        if not 0 < eps < variance:
            raise InputError(f"vid's eps {eps} must lie between 0 and its first variance {variance}")
        stages = list(zip(pair.student.features, pair.teacher.features))
        # Compared at the size of the smaller map.
        sizes = [theirs[0] * min(ours[1], theirs[1]) * min(ours[2], theirs[2]) for ours, theirs in stages]
        self.elements = [size if reduction == "sum" else 1 for size in sizes]
        """What each stage's mean is multiplied by."""
        self.stages = nn.ModuleList(Predictor(ours[0], theirs[0], variance, eps) for ours, theirs in stages)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The sum of the stages' losses, a scalar."""
        stages = zip(self.stages, student.features, teacher.features, self.elements)
        losses = [predictor(ours, theirs.detach()) * count for predictor, ours, theirs, count in stages]
        return torch.stack(losses).sum()
