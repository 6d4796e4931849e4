"""How confident a network is (Table 13), and how well its confidence is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sftn.data.dataset import Split
from sftn.networks.staged import StagedNet
from sftn.training.evaluate import Predictions, predictions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BINS = 15


def reliability(found: Predictions, bins: int = BINS) -> Tensor:
    """Count images and right answers and sum confidence in equally wide bins of confidence, (low, high].

    Returns (3, bins) float64; bins without images are zero.
    """
    where = ((found.confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    right = found.right.double()
    rows = torch.stack([torch.ones_like(right), right, found.confidence])
    return torch.zeros(3, bins, dtype=torch.float64).index_add_(1, where, rows)


def calibration_error(found: Predictions, bins: int = BINS) -> float:
    """Expected calibration error in percent (Guo et al., ICML 2017, equation 3).

    The gap between mean confidence and accuracy in each bin of `reliability`, weighted by the images in the bin.
    """
    _, right, confidence = reliability(found, bins)
    return 100 * float((right - confidence).abs().sum()) / len(found.labels)


def confidence(
    network: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    *,
    bins: int = BINS,
    batch: int = 250,
) -> dict[str, float]:
    """Measure entropy and calibration of a network, in eval mode, over a split without augmentation.

    Args:
        network: on the device of `fabric`.
        split: images and labels.
        normalisation: as in training.
        fabric: device and precision.
        bins: number of bins of the calibration error.
        batch: images per batch; affects speed and rounding only.

    Returns:
        `entropy`: mean Shannon entropy of the softmax outputs at temperature 1, in nats, from 0 to log K. `confidence`:
        mean of the largest probability, in percent. `ece`: `calibration_error`. `accuracy` in percent.
    """
    found = predictions(network, split, normalisation, fabric, batch=batch)
    return {
        "entropy": float(found.entropy.mean()),
        "confidence": 100 * float(found.confidence.mean()),
        "ece": calibration_error(found, bins),
        "accuracy": found.accuracy,
    }
