"""NKD: the target's probability, and the others normalised among themselves (Yang et al., 2023, arXiv:2303.13005)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sftn.methods.base import in_float32, require_positive
from sftn.methods.logits import LogitMethod, others
from sftn.networks.alignment import Pair


@in_float32
def target_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """-p(own class)·log q(own class), p the teacher's and q the student's at temperature 1; (B, K) each: a scalar."""
    own = labels.unsqueeze(1)
    return -(F.softmax(teacher, dim=1).gather(1, own) * F.log_softmax(student, dim=1).gather(1, own)).mean()


@in_float32
def nontarget_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T²·cross-entropy of the other classes, normalised among themselves at temperature T; (B, K) each: a scalar.

    A cross-entropy and not a divergence: it is not zero where both agree, and its gradient is the divergence's.
    """
    theirs = F.softmax(others(teacher, labels) / temperature, dim=1)
    ours = F.log_softmax(others(student, labels) / temperature, dim=1)
    return -(theirs * ours).sum(1).mean() * temperature**2


class NKD(LogitMethod):
    """Normalised KD (arXiv:2303.13005): target + γ·nontarget, equation 5.

    Reads the logits, (B, K). With two classes nontarget is zero.

    Deviation: none from the authors' code; the target is at temperature 1 whatever T is. The defaults are its
    configuration for CIFAR-100; for ImageNet it has T = 1 and γ = 1.5.

    Example:
        >>> method = NKD(pair, gamma=1.5, temperature=1.0)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks.
        gamma: weight of nontarget.
        temperature: T, of nontarget.
        standardise: compare standardised logits.

    Raises:
        InputError: the weight is negative, or the temperature is not positive.
    """

    summary = "From Knowledge Distillation to Self-Knowledge Distillation (Yang et al., ICCV 2023)"
    source = "yzd-v/cls_KD"
    kd = 0.0

    def __init__(self, pair: Pair, *, gamma: float = 3.5, temperature: float = 3.0, standardise: bool = False) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("nkd", temperature=temperature)
        require_positive("nkd", zero=True, gamma=gamma)
        self.gamma, self.temperature = gamma, temperature

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Target + γ·nontarget."""
        nontarget = nontarget_loss(student, teacher, labels, self.temperature)
        return target_loss(student, teacher, labels) + self.gamma * nontarget
