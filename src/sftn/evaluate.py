"""What is said of a trained network on a split of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.dataset import Split
from sftn.data.loader import plain
from sftn.networks.staged import StagedNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def evaluate(
    network: StagedNet, split: Split, normalisation: tuple[Tensor, Tensor], fabric: Fabric, *, batch: int = 250
) -> dict[str, float]:
    """Accuracy and confidence of a network, in eval mode, over a whole split.

    Args:
        network: on the device of `fabric`; its mode is left at eval.
        split: images and labels.
        normalisation: mean and standard deviation of each channel, as in training.
        fabric: gives device and precision.
        batch: images at once; changes nothing but speed and rounding.

    Returns:
        `accuracy` and `top5` in percent (top5 only with more than five classes), `nll` (mean cross-entropy, nats) and
        `entropy` (mean entropy of the softmax output, nats).
    """
    network.eval()
    device = fabric.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for images, labels, _ in plain(split, batch=batch, normalisation=normalisation, device=device):
        with fabric.autocast():
            logits = network(images)
        log_p = F.log_softmax(logits.float(), dim=1)
        best = log_p.topk(min(5, log_p.shape[1]), dim=1).indices == labels[:, None]
        sums += torch.stack(
            [
                best[:, 0].sum().double(),
                best.sum().double(),
                F.nll_loss(log_p, labels, reduction="sum").double(),
                -(log_p.exp() * log_p).sum().double(),
            ]
        )
    right, near, nll, entropy = (sums / len(split)).tolist()
    found = {"accuracy": 100 * right, "nll": nll, "entropy": entropy}
    return found | ({"top5": 100 * near} if logits.shape[1] > 5 else {})
