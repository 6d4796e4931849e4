"""What methods that compare logits share: standardised logits, logits without an image's own class, the base class."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations

EPS = 1e-7
"""Added to a row's deviation, as sunshangquan/logit-standardization-KD does."""


@in_float32
def standardised(logits: Tensor) -> Tensor:
    """(B, K) -> (B, K): each row minus its mean, divided by its deviation (of K - 1) + 1e-7 (arXiv:2403.01427).

    The gradient passes through both. A row that is constant up to rounding becomes zero and passes none, where public
    code passes one of 1e7.
    """
    rows = centred(logits)
    deviation = torch.linalg.vector_norm(rows, dim=1, keepdim=True) / math.sqrt(logits.shape[1] - 1)
    return rows / (deviation + EPS)


def centred(rows: Tensor) -> Tensor:
    """(R, N) -> (R, N): each row minus its mean; zero, without a gradient, where a row is constant up to rounding."""
    found = rows - rows.mean(1, keepdim=True)
    left, length = torch.linalg.vector_norm(torch.stack([found, rows]).detach(), dim=2, keepdim=True)
    # What is left of a constant row is rounding noise, which a division by its length would blow up.
    return found.masked_fill(left <= 4 * torch.finfo(rows.dtype).eps * length, 0)


def others(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, K), (B,) -> (B, K - 1): the logits of the classes that are not an image's own, in their order.

    Gathered: subtracting a large number from the own class instead, as public code does, leaks where a logit leads by
    more than that, and gives a teacher that listens a gradient of NaN.
    """
    columns = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, columns + (columns >= labels.unsqueeze(1)))


class LogitMethod(Method):
    """A method that compares the logits of an image, (B, K) each, standardised before if it is asked to.

    A subclass writes `loss` and may name what `NAME@std` stands for.

    Args:
        pair: the networks.
        standardise: compare standardised logits (`standardised`).

    Raises:
        InputError: logits of two classes are to be standardised, which leaves nothing of them.
    """

    reads = "logits"
    teacher_outputs = ("logits",)
    standardised_options: ClassVar[Mapping[str, float]] = {}
    standardised_weight: ClassVar[float | None] = None
    """The options and the weight of `NAME@std`, where they differ from those of `NAME`."""

    def __init__(self, pair: Pair, *, standardise: bool = False) -> None:
        super().__init__(pair)
        if standardise:
            check_standardised(pair.classes)
        self.standardise = standardise

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The loss of the logits, a scalar."""
        ours, theirs = student.logits, teacher.logits.detach()
        if self.standardise:
            ours, theirs = standardised(ours), standardised(theirs)
        return self.loss(ours, theirs, batch.labels)

    def softness(self) -> Tensor | float:
        """The temperature at which the probabilities of several teachers are averaged (`sftn.methods.ensemble`)."""
        return float(getattr(self, "temperature", 1.0))

    @abstractmethod
    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """(B, K), (B, K), (B,) -> a scalar; no gradient reaches the teacher."""


def check_standardised(classes: int, remedy: str = "leave out @std") -> None:
    """Refuse to standardise what carries nothing then.

    Args:
        classes: their number.
        remedy: what the message advises.

    Raises:
        InputError: there are two classes, whose standardised logits are ±0.71 whatever they were.
    """
    if classes <= 2:
        raise InputError(f"standardised logits of two classes are the same for every image: {remedy}")
