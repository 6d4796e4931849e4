"""Supervised training of a network with cross-entropy alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import check_batch, check_labels
from sftn.methods.base import to_float32
from sftn.networks.staged import StagedNet


class Supervised(nn.Module):
    """A network with its cross-entropy loss, for a standard teacher or a student without a teacher."""

    def __init__(self, network: StagedNet) -> None:
        super().__init__()
        self.network = network
        self._entered = False  # whether a first batch has been checked
        self.watched = False
        """Whether the loop finds numbers that are not finite itself; if not, the first batch is searched for them."""

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """The `loss` and the batch's `accuracy` in percent, for (B, C, H, W) images and (B,) labels.

        Raises:
            InputError: this is not such a batch (`sftn.data.batch.check_batch`).
        """
        first = not self._entered
        check_batch(images, labels, self.network, training=self.training, first=first, watched=self.watched)
        logits = to_float32(self.network(images))
        check_labels(labels, logits.shape[1], first)
        if not torch.compiler.is_compiling():
            self._entered = True
        accuracy = 100 * (logits.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy.detach()}
