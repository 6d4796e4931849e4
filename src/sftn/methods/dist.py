"""DIST: how the student's probabilities go along with the teacher's (Huang et al., 2022, arXiv:2205.10536)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.methods.base import in_float32, require_positive
from sftn.methods.logits import LogitMethod, centred
from sftn.networks.alignment import Pair
from sftn.runtime.collectives import gathered

EPS = 1e-8
"""Added to the product of two lengths, as the authors' code does; a clamp would give other gradients."""


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """(R, N), (R, N) -> (R,): Pearson's correlation of each row with its counterpart.

    0, without a gradient, where a row is constant up to rounding.
    """
    ours, theirs = centred(student), centred(teacher)
    lengths = torch.linalg.vector_norm(ours, dim=1) * torch.linalg.vector_norm(theirs, dim=1)
    return (ours * theirs).sum(1) / (lengths + EPS)


@in_float32
def correlation_losses(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both losses of two (B, K) logits, each ×τ² and not weighted.

    Returns:
        inter: 1 - the correlation of an image's probabilities over the classes, the mean over images.
        intra: 1 - the correlation of a class's probabilities over the batch, the mean over classes; τ² for a batch of
            one, with no gradient.
    """
    ours, theirs = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    inter = 1 - correlation(ours, theirs).mean()
    intra = 1 - correlation(ours.T, theirs.T).mean()
    return inter * temperature**2, intra * temperature**2


class DIST(LogitMethod):
    """Distillation from a stronger teacher (arXiv:2205.10536): β·inter + γ·intra, equations 9 to 11.

    Reads the logits, (B, K), of all images of the batch: intra depends on which images are in it. The defaults are
    those for CIFAR, 1·CE + 2·(inter + intra) at τ = 4, where the paper has β = γ = 2 and no factor; ImageNet has τ = 1.

    Deviations: as in the authors' code there is a τ², which the paper does not have. Rows and columns that are constant
    up to rounding pass no gradient, where that code passes some 1e5 times the usual one.

    Example:
        >>> method = DIST(pair, temperature=4.0)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks.
        beta: weight of inter.
        gamma: weight of intra.
        temperature: τ.
        standardise: compare standardised logits.

    Raises:
        InputError: a weight is negative, or the temperature is not positive.
    """

    summary = "Knowledge Distillation from A Stronger Teacher (Huang et al., NeurIPS 2022)"
    source = "hunto/image_classification_sota"
    kd = 0.0
    weight = 2.0

    def __init__(
        self,
        pair: Pair,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("dist", temperature=temperature)
        require_positive("dist", zero=True, beta=beta, gamma=gamma)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """β·inter + γ·intra."""
        inter, intra = correlation_losses(gathered(student), gathered(teacher), self.temperature)
        return self.beta * inter + self.gamma * intra
