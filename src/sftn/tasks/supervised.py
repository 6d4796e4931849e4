"""Supervised training of a network with cross-entropy alone."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sftn.methods.base import to_float32
from sftn.networks.staged import StagedNet


class Supervised(nn.Module):
    """A network with its cross-entropy loss, for a standard teacher or a student without a teacher."""

    def __init__(self, network: StagedNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """The `loss` and the batch's `accuracy` in percent, for (B, C, H, W) images and (B,) labels."""
        logits = to_float32(self.network(images))
        accuracy = 100 * (logits.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy.detach()}
