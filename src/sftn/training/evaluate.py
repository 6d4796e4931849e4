"""What a trained network predicts on a split of the data, and how well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Predictions:
    """Of a network on N images, on the CPU."""

    labels: Tensor
    """(N,) int64: the true classes."""
    answers: Tensor
    """(N,) int64: the predicted classes."""
    confidence: Tensor
    """(N,) float64: the largest probability."""
    loss: Tensor
    """(N,) float64: cross-entropy in nats."""
    entropy: Tensor
    """(N,) float64: Shannon entropy of the softmax output at temperature 1 in nats, from 0 to log K."""

    @property
    def right(self) -> Tensor:
        """(N,) bool"""
        return self.answers == self.labels

    @property
    def accuracy(self) -> float:
        """In percent, exactly as `evaluate` gives it."""
        return _percent(int(self.right.sum()), len(self.labels))


@torch.no_grad()
def predictions(
    network: StagedNet, split: Split, normalisation: tuple[Tensor, Tensor], fabric: Fabric, *, batch: int = 250
) -> Predictions:
    """What a network, left in eval mode, predicts for each image of a split.

    Args:
        network: on the device of `fabric`.
        split: images, which are not augmented, and labels.
        normalisation: mean and standard deviation of each channel, as in training.
        fabric: gives device and precision.
        batch: images at once; changes nothing but speed and rounding.
    """
    rows = []
    for labels, logits, _, top in _forward(network, split, normalisation, fabric, batch):
        log_p = F.log_softmax(logits.double(), dim=1)
        entropy = torch.special.entr(log_p.exp()).sum(1)
        loss = -log_p.gather(1, labels[:, None]).squeeze(1)
        rows.append((labels, top[:, 0], log_p.amax(1).exp(), loss, entropy))
    return Predictions(*(torch.cat(column).cpu() for column in zip(*rows)))


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
    the same numbers. Nothing is kept of single images, and the device is waited for once.

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
    sums = torch.zeros(4, dtype=torch.float64, device=fabric.device)
    given: Tensor | int = 0
    share = (rank(), world())
    for labels, _, log_p, top in _forward(network, split, normalisation, fabric, batch * world(), share, pause):
        near = top == labels[:, None]
        given = given + F.one_hot(top[:, 0], log_p.shape[1]).sum(0)
        # In float32 within a batch: so were all results that are recorded.
        sums += torch.stack(
            [
                near[:, 0].sum().double(),
                near.sum().double(),
                F.nll_loss(log_p, labels, reduction="sum").double(),
                -(log_p.exp() * log_p).sum().double(),
            ]
        )
    right, near_sum, nll, entropy = total(sums).tolist()
    images, counts = len(split), total(torch.as_tensor(given))
    found = {"accuracy": _percent(right, images), "nll": nll / images, "entropy": entropy / images}
    found["favourite"] = 100 * int(counts.max()) / images
    return found | ({"top5": _percent(near_sum, images)} if len(counts) > 5 else {})


def _forward(
    network: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    batch: int,
    share: tuple[int, int] = (0, 1),
    pause: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Labels, logits, their log-softmax in float32, and the classes of up to five highest ones, batch by batch.

    The first of these classes is the answer everywhere: logits in half precision have ties, which `max` and `argmax`
    break in other ways than `topk`.
    """
    network.eval()
    for images, labels, _ in evaluation_batches(
        split, batch=batch, normalisation=normalisation, device=fabric.device, share=share
    ):
        pause()
        with fabric.autocast():
            logits = network(images)
        log_p = F.log_softmax(logits.float(), dim=1)
        yield labels, logits, log_p, log_p.topk(min(5, log_p.shape[1]), dim=1).indices


def _percent(count: float, of: int) -> float:
    return 100 * (count / of)


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
