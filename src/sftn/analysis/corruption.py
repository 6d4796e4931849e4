"""Robustness to common corruptions (Table 11): accuracy on the 19 CIFAR-C corruptions at severities 1 to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sftn.analysis.corrupted import Corrupted
from sftn.analysis.corruptions import CORRUPTIONS, SEVERITIES
from sftn.data.dataset import Split
from sftn.errors import InputError
from sftn.networks.staged import StagedNet
from sftn.training.evaluate import evaluate

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Robustness:
    """Accuracies of a network in percent."""

    network: str
    clean: float
    """Without distortion."""
    accuracy: Mapping[str, Sequence[float]]
    """For each corruption, one accuracy per severity."""

    @property
    def averages(self) -> list[float]:
        """Rows of Table 11: without distortion, then the mean over the corruptions at intensities 1 to 5."""
        return [self.clean, *(fmean(row[s - 1] for row in self.accuracy.values()) for s in SEVERITIES)]

    @property
    def mean(self) -> float:
        """Mean accuracy over all corruptions and severities."""
        return fmean(self.averages[1:])

    def mce(self, reference: Robustness) -> float:
        """Mean corruption error in percent: errors summed over severities, relative to a reference's, averaged.

        Raises:
            InputError: the reference was tested on other corruptions, or makes no error under one of them.
        """
        if self.accuracy.keys() != reference.accuracy.keys():
            raise InputError(f"{reference.network} was not tested on the same corruptions as {self.network}")
        relative = []
        for name, row in self.accuracy.items():
            theirs = sum(100 - value for value in reference.accuracy[name])
            if theirs <= 0:
                raise InputError(f"{reference.network} makes no error under {name}: mCE needs another reference")
            relative.append(100 * sum(100 - value for value in row) / theirs)
        return fmean(relative)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"averages": self.averages, "mean": self.mean}


def robustness(
    network: StagedNet,
    corrupted: Corrupted,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    names: Sequence[str] = tuple(CORRUPTIONS),
    *,
    name: str | None = None,
    batch: int = 250,
    watch: Callable[[str], None] | None = None,
) -> Robustness:
    """Measure a network's accuracy on clean and corrupted test images.

    Args:
        network: on the device of `fabric`.
        corrupted: the images, from `sftn.analysis.corrupted`.
        normalisation: of the training images.
        fabric: device and precision.
        names: the corruptions to test.
        name: the network's name in tables.
        batch: images per batch.
        watch: called with each corruption's name when it is done.

    Raises:
        InputError: as `Corrupted.split`.
    """

    def accuracy(split: Split) -> float:
        return evaluate(network, split.to(fabric.device), normalisation, fabric, batch=batch)["accuracy"]

    found = {}
    clean = accuracy(corrupted.test)
    for kind in names:
        found[kind] = [accuracy(corrupted.split(kind, severity)) for severity in SEVERITIES]
        if watch is not None:
            watch(kind)
    return Robustness(name or network.name, clean, found)
