"""What is said of a trained network on a split of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.dataset import Split
from sftn.data.loader import evaluation_batches
from sftn.networks.staged import StagedNet
from sftn.runtime.collectives import rank, total, world

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def evaluate(
    network: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    *,
    batch: int = 250,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Accuracy and confidence of a network, in eval mode, over a whole split.

    Several processes each take a part of every batch, and add up what they count: each image counts once, and all get
    the same numbers.

    Args:
        network: on the device of `fabric`; its mode is left at eval.
        split: images and labels.
        normalisation: mean and standard deviation of each channel, as in training.
        fabric: gives device and precision.
        batch: images at once, in each process; changes nothing but speed and rounding.
        pause: called before every batch; by raising something it ends the evaluation.

    Returns:
        `accuracy` and `top5` in percent (top5 only with more than five classes), `nll` (mean cross-entropy, nats),
        `entropy` (mean entropy of the softmax output, nats) and `favourite`, the share of images in percent that are
        given the class that is given most often.
    """
    network.eval()
    device = fabric.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    given: Tensor | int = 0
    at_once, share = batch * world(), (rank(), world())
    for images, labels, _ in evaluation_batches(
        split, batch=at_once, normalisation=normalisation, device=device, share=share
    ):
        pause()
        with fabric.autocast():
            logits = network(images)
        log_p = F.log_softmax(logits.float(), dim=1)
        top = log_p.topk(min(5, log_p.shape[1]), dim=1).indices
        best = top == labels[:, None]
        given = given + F.one_hot(top[:, 0], log_p.shape[1]).sum(0)
        sums += torch.stack(
            [
                best[:, 0].sum().double(),
                best.sum().double(),
                F.nll_loss(log_p, labels, reduction="sum").double(),
                -(log_p.exp() * log_p).sum().double(),
            ]
        )
    right, near, nll, entropy = (total(sums) / len(split)).tolist()
    favourite = 100 * int(total(torch.as_tensor(given)).max()) / len(split)
    found = {"accuracy": 100 * right, "nll": nll, "entropy": entropy, "favourite": favourite}
    return found | ({"top5": 100 * near} if logits.shape[1] > 5 else {})


def collapsed(favourite: float, labels: Tensor) -> bool:
    """Whether a network gives (nearly) one class to all images, far more often than there is reason to.

    It has collapsed if it gives the other classes less than a tenth as often as they occur: of ten equally frequent
    classes, if more than 91 % of all images are given one. Where 99 % of the images are of one class, giving that one
    to 99.5 % is no collapse yet. Nothing can collapse to the only class there is.

    Args:
        favourite: what `evaluate` says of the network, in percent.
        labels: (N,) of the images that it was evaluated on.
    """
    largest = 100 * int(labels.bincount().max()) / len(labels)
    return 100 - favourite < (100 - largest) / 10
