"""Several teachers heard together: the weighted mean of their softened outputs, as the logits of one teacher."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.methods.base import in_float32
from sftn.spec.run import Weighting


@in_float32
def teacher_weights(logits: Tensor, labels: Tensor, weighting: Weighting = "mean") -> Tensor:
    """How much each of M ≥ 2 teachers counts for each image: (B, M, K) logits, (B,) labels -> (B, M), rows of sum 1.

    `mean` weighs them equally. `ca` is confidence-aware (Zhang et al., 2022, arXiv:2201.00007): from the
    cross-entropy CE_m of teacher m with an image's label,

        w_m = (1 - exp(CE_m) / Σ_j exp(CE_j)) / (M - 1),

    so a teacher that is surely wrong on an image does not count for it, and no teacher counts more than 1 / (M - 1).
    """
    teachers = logits.shape[1]
    if weighting == "mean":
        return torch.full_like(logits[:, :, 0], 1 / teachers)
    own = labels.view(-1, 1, 1).expand(-1, teachers, 1)
    cross_entropy = -F.log_softmax(logits, dim=2).gather(2, own).squeeze(2)
    return (1 - cross_entropy.softmax(1)) / (teachers - 1)


@in_float32
def combined(logits: Tensor, weights: Tensor, temperature: Tensor | float) -> Tensor:
    """Logits whose softmax at a temperature T is the weighted mean of the teachers' softmaxes at T.

    T·log Σ_m w_m softmax(z_m / T): a mean of softened outputs depends on T, and so do these logits, which are right at
    T alone. KL to the mean has the gradient of the weighted mean of the teachers' KLs; the values differ by a constant.

    Args:
        logits: (B, M, K)
        weights: (B, M), rows of sum 1; zeros are fine.
        temperature: T.

    Returns:
        (B, K)
    """
    log = F.log_softmax(logits / temperature, dim=2) + weights.log().unsqueeze(2)
    return temperature * log.logsumexp(1)


class Voices(NamedTuple):
    """What several teachers say of the images of a batch."""

    logits: Tensor
    """(B, M, K)"""
    weights: Tensor
    """(B, M)"""

    @staticmethod
    def of(side_by_side: Tensor, labels: Tensor, teachers: int, weighting: Weighting) -> Voices:
        """From (B·V, M·K) logits side by side, the V views of an image one after the other, and its (B,) labels."""
        logits = side_by_side.unflatten(1, (teachers, -1))
        return Voices(logits, teacher_weights(logits, labels.repeat_interleave(len(logits) // len(labels)), weighting))

    @property
    def first(self) -> Tensor:
        """(B, K): the logits of the first teacher alone."""
        return self.logits[:, 0]

    def together(self, temperature: Tensor | float) -> Tensor:
        """(B, K): all of them as one teacher's, at a temperature (`combined`)."""
        return combined(self.logits, self.weights, temperature)
