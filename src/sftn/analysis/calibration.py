"""How sure a network is of its answers (Table 13), and whether it may be (calibration)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.dataset import Split
from sftn.data.loader import evaluation_batches
from sftn.networks.staged import StagedNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BINS = 15


@torch.no_grad()
def confidence(
    network: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    *,
    bins: int = BINS,
    batch: int = 250,
) -> dict[str, float]:
    """Entropy and calibration of a network, in eval mode, over a split of images that are not augmented.

    Args:
        network: on the device of `fabric`.
        split: images and labels.
        normalisation: as in training.
        fabric: device and precision.
        bins: of the calibration error.
        batch: images at once; changes nothing but speed and rounding.

    Returns:
        `entropy`: mean Shannon entropy of the softmax outputs at temperature 1, in nats, from 0 to log K. `confidence`:
        mean of the largest probability, in percent. `ece`: expected calibration error in percent: by bins of equal
        width in confidence, (lower, upper], the gap between mean confidence and accuracy, weighted by the images in
        the bin (Guo et al., ICML 2017, equation 3). `accuracy` in percent.
    """
    network.eval()
    device = fabric.device
    entropy = torch.zeros((), dtype=torch.float64, device=device)
    # By bin: images, right answers, summed confidence.
    table = torch.zeros(3, bins, dtype=torch.float64, device=device)
    for images, labels, _ in evaluation_batches(split, batch=batch, normalisation=normalisation, device=device):
        with fabric.autocast():
            logits = network(images)
        log_p = F.log_softmax(logits.double(), dim=1)
        entropy += torch.special.entr(log_p.exp()).sum()
        highest, answers = log_p.exp().max(dim=1)
        where = ((highest * bins).ceil().long() - 1).clamp(0, bins - 1)
        right = (answers == labels).double()
        table.index_add_(1, where, torch.stack([torch.ones_like(right), right, highest]))
    _, right_sum, confidence_sum = table.sum(1)
    gaps = (table[1] - table[2]).abs().sum()
    found = {"entropy": entropy, "confidence": 100 * confidence_sum, "ece": 100 * gaps, "accuracy": 100 * right_sum}
    return {name: float(total) / len(split) for name, total in found.items()}
