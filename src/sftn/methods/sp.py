"""SP: which images of a batch look alike (Tung & Mori, 2019, arXiv:1907.09682)."""

from __future__ import annotations

import torch
from torch import Tensor

from sftn.data.batch import Batch
from sftn.methods.base import Method, in_float32
from sftn.networks.staged import Activations
from sftn.runtime.collectives import gathered


def similarities(feature: Tensor) -> Tensor:
    """(B, ...) -> (B, B): inner products of the images' flattened features, each row brought to length 1.

    A row shorter than 1e-12 counts as zero, in value and gradient.
    """
    rows = feature.flatten(1)
    products = rows @ rows.T
    length = torch.linalg.vector_norm(products, dim=1, keepdim=True)
    # Divided by infinity, an image that is all zero gives a zero row and no gradient of the size 1/0.
    return products / length.where(length > 1e-12, torch.inf)


@in_float32
def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared Frobenius distance of the two similarity matrices ÷ B².

    Args:
        student: (B, ...)
        teacher: (B, ...), of any other shape.
    """
    return (similarities(student) - similarities(teacher)).square().mean()


class SP(Method):
    """Similarity-preserving distillation (arXiv:1907.09682) of the last stage's feature, as in RepDistiller.

    Reads the last features, (B, C, H, W) and (B, C', H', W'). No deviations from the paper. The mean over B² pairs
    makes the loss depend on the size of the batch.

    Example:
        >>> method = SP(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; maps of any shape.
    """

    summary = "Similarity-Preserving Knowledge Distillation (Tung & Mori, ICCV 2019)"
    reads = "the feature of the last stage"
    source = "RepDistiller"
    weight = 3000.0

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The distance of the two similarity matrices, a scalar."""
        return similarity_loss(gathered(student.features[-1]), gathered(teacher.features[-1].detach()))
