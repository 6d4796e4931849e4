"""USKD: soft labels that a network gives itself (Yang et al., 2023, arXiv:2303.13005)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.methods.logits import others
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations
from sftn.runtime.collectives import mean_over_batch

EPS = 1e-6
"""Added to what a score is divided by."""
SMOOTHING = 0.1
"""How much of the weak head's label is spread over all classes."""


class Parts(NamedTuple):
    """The parts of the loss, not weighted, all scalars."""

    target: Tensor
    nontarget: Tensor
    weak: Tensor


def soft_target(student: Tensor, labels: Tensor) -> Tensor:
    """(B, K), (B,) -> (B,): p² + 1 - the batch's mean of p², p the probability of an image's own class."""
    own = F.softmax(student, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1).square()
    return own + 1 - mean_over_batch(own)


def order(student: Tensor, weak: Tensor, labels: Tensor) -> Tensor:
    """(B, K), (B, K), (B,) -> (B, K): the classes from the highest score of both heads to the lowest.

    As in the authors' code, the student's part of a score is its log-probability; its probability is surely meant.
    """

    def score(part: Tensor) -> Tensor:
        return part / (1 - part.gather(1, labels.unsqueeze(1)) + EPS)

    scores = score(F.softmax(weak, dim=1)) + score(F.log_softmax(student, dim=1))
    return scores.argsort(dim=1, descending=True, stable=True)


def zipf(ranked: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, K) classes in order, (B,) -> (B, K - 1): 1 ÷ the rank among all classes of each other one, summing to 1."""
    ranks = torch.arange(1, ranked.shape[1] + 1, device=ranked.device, dtype=dtype).expand(ranked.shape)
    shares = others(torch.empty_like(ranks).scatter(1, ranked, 1 / ranks), labels)
    return shares / shares.sum(1, keepdim=True)


@in_float32
def self_distillation_loss(student: Tensor, weak: Tensor, labels: Tensor) -> Parts:
    """The three parts, for the (B, K) logits of the student and of its weak head; the soft labels are constants."""
    own = labels.unsqueeze(1)
    with torch.no_grad():
        target = soft_target(student, labels)
        spread = zipf(order(student, weak, labels), labels, student.dtype)
    return Parts(
        target=-(target * F.log_softmax(student, dim=1).gather(1, own).squeeze(1)).mean(),
        nontarget=-(spread * F.log_softmax(others(student, labels), dim=1)).sum(1).mean(),
        weak=F.cross_entropy(weak, labels, label_smoothing=SMOOTHING),
    )


class USKD(Method):
    """Universal self-KD (arXiv:2303.13005): α·target + β·nontarget + μ·weak, of the student alone.

    Reads the student's logits (B, K) and its feature of the last stage but one, (B, C, H, W), whose mean a weak head
    classifies. It takes nothing of the teacher: it is here to be compared with methods that do.

    Deviation: none from the authors' code, which ranks the classes by the student's log-probability where its
    probability is surely meant. The defaults are its configuration for CIFAR-100; the class there has 1, 0.1, 0.005.

    Example:
        >>> method = USKD(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; the student of at least two stages.
        alpha: weight of target.
        beta: weight of nontarget.
        mu: weight of the weak head's cross-entropy.

    Raises:
        InputError: a weight is negative, or there is but one stage.
    """

    summary = "From Knowledge Distillation to Self-Knowledge Distillation (Yang et al., ICCV 2023)"
    reads = "the student's logits and its feature of the last stage but one"
    source = "yzd-v/cls_KD"
    kd = 0.0
    teacher_outputs = ()

    def __init__(self, pair: Pair, *, alpha: float = 0.1, beta: float = 0.1, mu: float = 0.1) -> None:
        super().__init__(pair)
        require_positive("uskd", zero=True, alpha=alpha, beta=beta, mu=mu)
        if len(pair.student.features) < 2:
            raise InputError("uskd reads the last stage but one, and only one is aligned: choose another method")
        self.alpha, self.beta, self.mu = alpha, beta, mu
        self.weak_head = nn.Linear(pair.student.features[-2][0], pair.classes)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """α·target + β·nontarget + μ·weak, a scalar."""
        return self.loss(student.logits, student.features[-2].mean((2, 3)), batch.labels)

    def loss(self, student: Tensor, middle: Tensor, labels: Tensor) -> Tensor:
        """(B, K) logits, the (B, C) mean of the middle feature, (B,) -> a scalar."""
        parts = self_distillation_loss(student, in_own_dtype(self.weak_head, middle), labels)
        return self.alpha * parts.target + self.beta * parts.nontarget + self.mu * parts.weak
