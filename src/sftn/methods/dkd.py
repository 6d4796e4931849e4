"""DKD: the teacher's certainty and its other classes apart (Zhao et al., 2022, arXiv:2203.08679)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.methods.base import in_float32, require_positive
from sftn.methods.kd import divergence
from sftn.methods.logits import LogitMethod, others
from sftn.networks.alignment import Pair


@in_float32
def target_class_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD: KL(teacher ‖ student)·T² of "its own class or another", for (B, K) logits: a scalar."""

    def own_or_other(logits: Tensor) -> Tensor:
        log = F.log_softmax(logits / temperature, dim=1)
        # A sum of logarithms, not the logarithm of a sum: finite however sure a network is.
        return torch.cat([log.gather(1, labels.unsqueeze(1)), others(log, labels).logsumexp(1, keepdim=True)], dim=1)

    ours, theirs = own_or_other(student), own_or_other(teacher)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2


@in_float32
def other_classes_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD: KL(teacher ‖ student)·T² of the classes that are not an image's own, for (B, K) logits: a scalar."""
    return divergence(others(student, labels), others(teacher, labels), temperature)


class DKD(LogitMethod):
    """Decoupled KD (arXiv:2203.08679): α·TCKD + β·NCKD, equations 7 and 8.

    Reads the logits, (B, K). TCKD compares how sure the networks are of an image's own class, NCKD the probabilities of
    the others among themselves; with α = 1 and β = 1 - p(own class) their sum would be KD. Its weight grows linearly
    over the first 20 of 240 epochs, as in mdistiller; cross-entropy has no warm-up. With two classes NCKD is zero.

    Deviation: the own class is left out where mdistiller subtracts 1000 from it, and logarithms are taken stably. The
    values are the same to rounding, except where a network leads by more than 1000·T, and nothing becomes infinite.

    `dkd@std` compares standardised logits with T = 2, α = 9 and β = 72, the weights that arXiv:2403.01427 multiplies.

    Example:
        >>> method = DKD(pair, beta=6.0)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks.
        alpha: weight of TCKD.
        beta: weight of NCKD; 8 for resnet32x4 to resnet8x4, 6 for WRN and vgg pairs, 2 for resnet56 to resnet20.
        temperature: T, of both.
        standardise: compare standardised logits.

    Raises:
        InputError: a weight is negative, or the temperature is not positive.
    """

    summary = "Decoupled Knowledge Distillation (Zhao et al., CVPR 2022)"
    source = "mdistiller"
    kd = 0.0
    weight_warmup = 20 / 240
    standardised_options: ClassVar[Mapping[str, float]] = {"temperature": 2.0, "alpha": 9.0, "beta": 72.0}

    def __init__(
        self,
        pair: Pair,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("dkd", temperature=temperature)
        require_positive("dkd", zero=True, alpha=alpha, beta=beta)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """α·TCKD + β·NCKD."""
        target = target_class_loss(student, teacher, labels, self.temperature)
        return self.alpha * target + self.beta * other_classes_loss(student, teacher, labels, self.temperature)
