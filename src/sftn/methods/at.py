"""AT: where the teacher looks (Zagoruyko & Komodakis, 2017, arXiv:1612.03928)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.methods.base import Method, in_float32, require_positive
from sftn.methods.options import check
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two (B, ·, H, W) maps with the larger one averaged down to the smaller one's height and width."""
    height, width = (min(student.shape[i], teacher.shape[i]) for i in (-2, -1))

    def pooled(feature: Tensor) -> Tensor:
        return feature if feature.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(feature, (height, width))

    return pooled(student), pooled(teacher)


@in_float32
def attention(feature: Tensor, p: float = 2) -> Tensor:
    """(B, C, H, W) -> (B, H·W): the channels' mean of |feature|^p, an image's map brought to length 1."""
    # The power of a norm: a third of the time of a mean of powers, on a CPU.
    return F.normalize((torch.linalg.vector_norm(feature, p, dim=1).pow(p) / feature.shape[1]).flatten(1))


@in_float32
def attention_loss(student: Tensor, teacher: Tensor, p: float = 2) -> Tensor:
    """Mean squared difference of the attention maps of one stage; (B, C, H, W) each, any C, H and W: a scalar."""
    student, teacher = same_size(student, teacher)
    return F.mse_loss(attention(student, p), attention(teacher, p))


@in_float32
def attention_norm(student: Tensor, teacher: Tensor, p: float = 2) -> Tensor:
    """Half the length of the difference of the attention maps of one stage, as in the paper; the mean over the batch.

    Args:
        student: (B, C, H, W), any C, H and W.
        teacher: (B, C', H', W'); the larger map is averaged down to the smaller.
        p: the power of an activation.
    """
    student, teacher = same_size(student, teacher)
    return torch.linalg.vector_norm(attention(student, p) - attention(teacher, p), dim=1).mean() / 2


class AT(Method):
    """Activation-based attention transfer (arXiv:1612.03928, equation 2), summed over the stages.

    Reads the features of all stages, (B, C, H, W) and (B, C', H', W').

    Deviations, all of the authors' code and RepDistiller too: the squared difference is averaged over positions where
    the paper takes its norm, so that a stage weighs 1/(H·W), the last one most: over three stages the gradient's cosine
    to the paper's is 0.88. The weight of 1000 is β/2 of squared norms with β = 2000/(H·W): 1.95 for maps of 32², 31 for
    8². `at(distance=norm)` is the paper's own form and needs another weight. The larger feature is pooled before its
    attention is taken. The power is of the absolute value, as in the paper; RepDistiller takes none, which differs for
    odd `p` and features of both signs.

    Example:
        >>> method = AT(pair, p=2)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; any map sizes.
        p: the power of an activation that counts as attention.
        distance: of two maps: the mean `squared` difference (the authors' code), or half its `norm` (the paper).

    Raises:
        InputError: the power is not positive, or the distance is neither.
    """

    summary = "Paying More Attention to Attention (Zagoruyko & Komodakis, ICLR 2017)"
    reads = "the features of all stages"
    source = "RepDistiller"
    weight = 1000.0

    def __init__(self, pair: Pair, *, p: float = 2, distance: Literal["squared", "norm"] = "squared") -> None:
        super().__init__(pair)
        require_positive("at", p=p)
        check("at", AT, {"distance": distance})
        self.p = p
        self.distance = distance

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The sum of the stages' losses, a scalar."""
        loss = attention_loss if self.distance == "squared" else attention_norm
        stages = zip(student.features, teacher.features)
        return torch.stack([loss(ours, theirs.detach(), self.p) for ours, theirs in stages]).sum()
