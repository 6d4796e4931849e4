"""Transfer of features to other images (Table 12): a linear classifier on frozen features.

The protocol is HSAKD's (`eval_rep.py` of winycg/HSAKD; the paper gives none): images at 32×32, SGD with momentum 0.9,
no weight decay, 100 epochs, learning rate 0.1 divided by 10 at epochs 30, 60 and 90, batch 64, pixels normalised by the
new data set. Differences: features are extracted once, so the training images are not augmented (there:
RandomResizedCrop and flips); plain momentum, not Nesterov's; the accuracy is the last epoch's (there the best, which is
reported as well); pixels are normalised by statistics of the new training images, not by rounded constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sftn.data.dataset import Dataset, Split
from sftn.data.loader import evaluation_batches
from sftn.errors import InputError
from sftn.networks.staged import StagedNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Probe:
    """Hyper-parameters of the linear classifier's training."""

    epochs: int = 100
    lr: float = 0.1
    milestones: tuple[int, ...] = (30, 60, 90)
    gamma: float = 0.1
    momentum: float = 0.9
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0")


@torch.no_grad()
def features(
    network: StagedNet, split: Split, normalisation: tuple[Tensor, Tensor], fabric: Fabric, *, batch: int = 250
) -> Tensor:
    """Extract the pooled last stage of every image, in eval mode, in order: (N, D) float32 on the fabric's device."""
    network.eval()
    found = []
    for images, _, _ in evaluation_batches(split, batch=batch, normalisation=normalisation, device=fabric.device):
        with fabric.autocast():
            found.append(network.activations(images).embedding.flatten(1).float())
    return torch.cat(found)


@torch.no_grad()
def linear_probe(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, probe: Probe = Probe()
) -> dict[str, float]:
    """Train a linear classifier on features and test it.

    This is softmax regression with an explicit gradient, (softmax − onehot)ᵀ·x / B: a step is four small products. An
    epoch over Tiny-ImageNet's 100,000 images takes one core 0.24 s with 64 features and 2.5 s with 1,024. The
    classifier is initialised like `nn.Linear`. Random numbers come from a CPU generator, the same on every device.

    Args:
        train: (N, D) float32 features and (N,) labels, on one device.
        test: the same for the test images.
        classes: K.
        probe: the protocol.

    Returns:
        `accuracy` of the last epoch, `best_accuracy` of all epochs and `train_accuracy`, in percent.

    Raises:
        InputError: labels do not fit the classes.
    """
    x, labels = train
    for _, own in (train, test):
        if len(own) and not 0 <= int(own.min()) <= int(own.max()) < classes:
            raise InputError(f"labels are {int(own.min())} to {int(own.max())}, which does not fit {classes} classes")
    generator = torch.Generator().manual_seed(probe.seed)
    width = x.shape[1]
    bound = width**-0.5
    # The bias is the weight of a feature that is always 1.
    weights = torch.empty(classes, width + 1).uniform_(-bound, bound, generator=generator).to(x)
    x, seen = (torch.cat([part, part.new_ones(len(part), 1)], dim=1) for part in (x, test[0]))
    velocity = torch.zeros_like(weights)
    lr, best, accuracy = probe.lr, 0.0, 0.0
    for epoch in range(probe.epochs):
        if epoch in probe.milestones:
            lr *= probe.gamma
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for index in order.split(probe.batch):
            batch, answers = x[index], labels[index]
            gradient = torch.softmax(batch @ weights.T, dim=1)
            gradient[torch.arange(len(index), device=x.device), answers] -= 1
            velocity.mul_(probe.momentum).addmm_(gradient.T, batch, alpha=1 / len(index))
            weights.sub_(velocity, alpha=lr)
        accuracy = _accuracy(weights, seen, test[1])
        best = max(best, accuracy)
    return {"accuracy": accuracy, "best_accuracy": best, "train_accuracy": _accuracy(weights, x, labels)}


def _accuracy(weights: Tensor, x: Tensor, labels: Tensor) -> float:
    return 100 * float(((x @ weights.T).argmax(1) == labels).double().mean())


def transfer(
    network: StagedNet, dataset: Dataset, fabric: Fabric, probe: Probe = Probe(), *, batch: int = 250
) -> dict[str, float]:
    """Train a linear classifier on a network's frozen features of a new data set.

    Args:
        network: trained on other images, on the device of `fabric`; it is not changed.
        dataset: images with the same number of channels; the paper's protocol uses 32×32.
        fabric: device and precision of the features; the classifier is float32.
        probe: how the classifier is trained.
        batch: images per batch when features are extracted.

    Returns:
        The results of `linear_probe`, and the number of `features`.

    Raises:
        InputError: the network reads another number of channels.
    """
    channels = next(parameter.shape[1] for parameter in network.parameters() if parameter.dim() == 4)
    if channels != dataset.image[0]:
        raise InputError(
            f"{network.name} takes images of {channels} channels and {dataset.name} has {dataset.image[0]}: "
            "use images with as many channels"
        )
    sides = []
    for split in (dataset.train, dataset.test):
        found = features(network, split, dataset.normalisation, fabric, batch=batch)
        sides.append((found, split.labels.to(fabric.device)))
    result = linear_probe(sides[0], sides[1], len(dataset.classes), probe)
    return result | {"features": float(sides[0][0].shape[1])}
