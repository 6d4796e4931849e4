"""Evaluation of a trained network on a split of the data: predictions, accuracy, confidence and collapse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import check_labels
from sftn.data.dataset import Split
from sftn.data.loader import evaluation_batches
from sftn.networks.staged import StagedNet
from sftn.runtime.collectives import rank, total, world

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Predictions:
    """A network's predictions for N images, on the CPU."""

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
        """(N,) bool: whether the predicted class is the true one."""
        return self.answers == self.labels

    @property
    def accuracy(self) -> float:
        """Accuracy in percent, exactly as `evaluate` returns it."""
        return _percent(int(self.right.sum()), len(self.labels))

    def by_class(self, classes: int) -> dict[str, list[Any]]:
        """Images and recall by class, exactly as `recalls` returns them."""
        counts = (some.bincount(minlength=classes).tolist() for some in (self.labels, self.labels[self.right]))
        return _recalls(*counts)


@torch.no_grad()
def predictions(
    network: StagedNet, split: Split, normalisation: tuple[Tensor, Tensor], fabric: Fabric, *, batch: int = 250
) -> Predictions:
    """A network's predictions for each image of a split.

    Args:
        network: on the device of `fabric`; it is left in eval mode.
        split: images, which are not augmented, and labels.
        normalisation: mean and standard deviation of each channel, as in training.
        fabric: device and precision.
        batch: images per batch; affects only speed and rounding.
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
    """Accuracy and confidence of a network over a whole split.

    In distributed training each process takes a part of every batch and the counts are added up: each image counts
    once, and all processes get the same numbers. Nothing is stored per image, and the device is synchronised once.

    Args:
        network: on the device of `fabric`; it is left in eval mode.
        split: images and labels.
        normalisation: mean and standard deviation of each channel, as in training.
        fabric: device and precision.
        batch: images per batch in each process; affects only speed and rounding.
        pause: called before every batch; may raise to end the evaluation.

    Returns:
        `accuracy` and `top5` in percent (top5 only with more than five classes), `nll` (mean cross-entropy, nats),
        `entropy` (mean entropy of the softmax output, nats) and `favourite`, the share of images in percent that get
        the most frequently predicted class.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=fabric.device)
    given: Tensor | int = 0
    share = (rank(), world())
    for labels, _, log_p, top in _forward(network, split, normalisation, fabric, batch * world(), share, pause):
        near = top == labels[:, None]
        given = given + F.one_hot(top[:, 0], log_p.shape[1]).sum(0)
        # float32 within a batch, as in all recorded results.
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


@torch.no_grad()
def recalls(
    network: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    *,
    batch: int = 250,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, list[Any]]:
    """Recall of a network by class over a whole split; arguments and processes as for `evaluate`.

    Returns:
        `images`: (K,) number of images of each class. `recall`: (K,) the share in percent that is recognised; None for
        a class without images.
    """
    counts: Tensor | int = 0
    share = (rank(), world())
    for labels, _, log_p, top in _forward(network, split, normalisation, fabric, batch * world(), share, pause):
        classes = log_p.shape[1]
        right = labels[top[:, 0] == labels]
        counts = counts + torch.stack([some.bincount(minlength=classes) for some in (labels, right)])
    return _recalls(*total(torch.as_tensor(counts)).tolist())


def _recalls(images: list[int], right: list[int]) -> dict[str, list[Any]]:
    return {"images": images, "recall": [_percent(n, of) if of else None for n, of in zip(right, images)]}


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

    The first of these classes is always the predicted one: half-precision logits have ties, which `max` and `argmax`
    break differently from `topk`.
    """
    network.eval()
    unchecked = True
    for images, labels, _ in evaluation_batches(
        split, batch=batch, normalisation=normalisation, device=fabric.device, share=share
    ):
        pause()
        with fabric.autocast():
            logits = network(images)
        if unchecked:  # all labels at once: a class that the network does not know would be an error of the device
            check_labels(split.labels, logits.shape[1], first=True)
            unchecked = False
        log_p = F.log_softmax(logits.float(), dim=1)
        yield labels, logits, log_p, log_p.topk(min(5, log_p.shape[1]), dim=1).indices


def _percent(count: float, of: int) -> float:
    return 100 * (count / of)


def collapsed(favourite: float, labels: Tensor) -> bool:
    """Whether a network predicts one class for (nearly) all images, far more often than the class occurs.

    It has collapsed if it predicts the other classes less than a tenth as often as they occur: with ten equally
    frequent classes, if one is predicted for more than 91 % of all images. If 99 % of the images belong to one class,
    predicting it for 99.5 % is not a collapse. With a single class there is no collapse.

    Args:
        favourite: the network's `favourite` from `evaluate`, in percent.
        labels: (N,) labels of the images that it was evaluated on.
    """
    largest = 100 * int(labels.bincount().max()) / len(labels)
    return 100 - favourite < (100 - largest) / 10
