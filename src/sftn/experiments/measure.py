"""Measurements on finished runs beyond their accuracy, each made once and stored in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftn.analysis import corrupted
from sftn.analysis.calibration import BINS, confidence
from sftn.analysis.corruption import robustness
from sftn.analysis.corruptions import CORRUPTIONS, VERSION
from sftn.analysis.similarity import MINIBATCH, similarity
from sftn.analysis.transfer import Probe, transfer
from sftn.data.dataset import Dataset, Split
from sftn.data.load import load
from sftn.errors import InputError
from sftn.experiments.grid import Planned
from sftn.experiments.metrics import Measured, Quantity, transfer_quantity
from sftn.experiments.table import ALONE
from sftn.networks.staged import StagedNet
from sftn.runs import measurements
from sftn.runs.build import load_network
from sftn.runs.folder import DONE, Entry, RunFolder
from sftn.runs.measurements import Reading
from sftn.runtime.device import make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

SMOKE_IMAGES, SMOKE_EPOCHS = 100, 10
SMOKE_CORRUPTIONS = ("gaussian_noise", "brightness", "pixelate")
_SIZE = 32

Found = tuple[Mapping[str, float], Mapping[str, Any]]
"""Measured numbers by name, and details for figures."""


@dataclass(frozen=True)
class Instrument:
    """A measurement that can be applied to any run of a table."""

    name: str
    settings: Mapping[str, Any]
    apply: Callable[[StagedNet, StagedNet | None, Fabric], Found]
    """Measures a network and its teacher (None unless `with_teacher`) on the fabric's device."""
    with_teacher: bool = False


def instruments(
    which: Measured,
    dataset: Dataset,
    out: Path,
    *,
    data_dir: Path | None = None,
    to: Sequence[str] = (),
    images: int | None = None,
    smoke: bool = False,
) -> list[Instrument]:
    """Prepare the measurements of a table; missing files are reported now, before any long computation.

    Args:
        which: the table or figure.
        dataset: the images of its runs.
        out: the folder of all runs; corrupted images are generated in its folder `corrupted`.
        data_dir: the folder to search for files first.
        to: for transfer: target data sets to use instead of the table's.
        images: maximum number of images per split; all if None.
        smoke: measure very little: few images, three corruptions, transfer to the runs' own images.

    Raises:
        InputError: files are missing, or an option does not apply to this table.
    """
    if to and which.measure != "transfer":
        raise InputError(f"--to is for table12: {which.name} does not measure transfer, leave it out")
    if images is not None and images < 10:
        raise InputError(f"images is {images}: measure on at least 10")
    if smoke and images is None:
        images = SMOKE_IMAGES
    if which.measure == "corruption":
        return [_corruption(dataset, out, data_dir, images, SMOKE_CORRUPTIONS if smoke else tuple(CORRUPTIONS))]
    if which.measure == "transfer":
        epochs = SMOKE_EPOCHS if smoke else Probe.epochs
        targets = to or ((dataset.name,) if smoke else which.targets)
        return [_transfer(target, dataset, data_dir, images, epochs) for target in targets]
    if which.measure == "similarity":
        return [_similarity(dataset, images)]
    return [_entropy(dataset, images)] if which.measure == "entropy" else []


def work(
    planned: Sequence[Planned],
    which: Measured,
    tools: Sequence[Instrument],
    dataset: Dataset,
    out: Path,
    *,
    device: str = "auto",
) -> None:
    """Make all missing measurements on finished runs; existing ones are not repeated.

    It can be interrupted at any time: finished measurements are stored.

    Raises:
        InputError: a run is not finished, or a file in its folder is foreign or was edited.
    """
    left = list(missing(planned, which, tools, out))
    for count, (item, tool, entry) in enumerate(left, 1):
        run = item.run
        fabric = make_fabric(device, run.precision)
        network = load_network(run, dataset, out).to(fabric.device)
        teacher = None
        if tool.with_teacher and run.teacher is not None:
            teacher = load_network(run.teacher, dataset, out).to(fabric.device)
        numbers, details = tool.apply(network, teacher, fabric)
        measurements.write(entry, tool.name, Reading(tool.settings, numbers, details))
        known = [Quantity(tool.name, "accuracy", "accuracy, %")] if which.targets else which.quantities
        own = [one for one in known if (one.source, one.role) == (tool.name, item.cell.role)]
        shown = "; ".join(f"{one.label} {numbers[one.name]:.{one.digits}f}" for one in own)
        logger.info(f"{count:4d}/{len(left)}  {tool.name}, seed {run.seed}  {item.title}: {shown}")


def missing(
    planned: Sequence[Planned], which: Measured, tools: Sequence[Instrument], out: Path
) -> Iterator[tuple[Planned, Instrument, Entry]]:
    """List the measurements that are still to be made on the finished runs of a plan.

    Measurements with other settings are repeated.

    Raises:
        InputError: a file in a run's folder is foreign or was edited.
    """
    for tool in tools:
        for item in subjects(planned, which):
            entry = RunFolder(out / item.run.folder).inspect()
            if entry.state != DONE:
                continue
            found = measurements.read(entry, tool.name)
            if found is None or found.settings != tool.settings:
                yield item, tool, entry


def subjects(planned: Sequence[Planned], which: Measured) -> list[Planned]:
    """The runs of a plan that are measured: distilled students, and teachers if the table includes them."""
    return [item for item in planned if item.cell.role in which.roles and item.cell.way != ALONE]


def _corruption(
    dataset: Dataset, out: Path, data_dir: Path | None, images: int | None, names: tuple[str, ...]
) -> Instrument:
    cut = replace(dataset, test=_first(dataset.test, images))
    official = corrupted.find(cut, data_dir)

    @cache
    def pixels() -> corrupted.Corrupted:
        return official or corrupted.generate(cut, out / "corrupted", names)

    def apply(network: StagedNet, teacher: StagedNet | None, fabric: Fabric) -> Found:
        found = robustness(network, pixels(), dataset.normalisation, fabric, names)
        return {str(severity): value for severity, value in enumerate(found.averages)}, {"accuracy": found.accuracy}

    generated = official is None or official.generated
    settings = {
        "images": "generated" if generated else "official",
        "version": VERSION if generated else None,
        "corruptions": list(names),
        "test_images": len(cut.test),
        "of": len(dataset.test),
    }
    return Instrument("corruption", settings, apply)


def _transfer(name: str, dataset: Dataset, data_dir: Path | None, images: int | None, epochs: int) -> Instrument:
    sized = name.partition(":")[0] in ("folder", "stl10", "tiny-imagenet")
    target = load(name, data_dir=data_dir, size=_SIZE if sized else None)
    if target.image[0] != dataset.image[0]:
        raise InputError(
            f"{name} has images with {target.image[0]} channels, but the networks take {dataset.image[0]}: "
            "choose other images with --to"
        )
    cut = replace(target, train=_spread(target.train, images), test=_spread(target.test, images))
    probe = Probe(epochs=epochs, milestones=tuple(round(share * epochs) for share in (0.3, 0.6, 0.9)))

    def apply(network: StagedNet, teacher: StagedNet | None, fabric: Fabric) -> Found:
        return transfer(network, cut, fabric, probe), {}

    settings = {
        "to": name,
        "fingerprint": cut.identity,
        "training_images": len(cut.train),
        "test_images": len(cut.test),
        "of": len(target.test),
        "probe": asdict(probe) | {"milestones": list(probe.milestones)},
    }
    return Instrument(transfer_quantity(name).source, settings, apply)


def _similarity(dataset: Dataset, images: int | None) -> Instrument:
    test = _first(dataset.test, images)

    def apply(network: StagedNet, teacher: StagedNet | None, fabric: Fabric) -> Found:
        if teacher is None:
            raise InputError(f"{network.name} has no teacher to compare it with")
        return similarity(teacher, network, test, dataset.normalisation, fabric), {}

    settings = {"minibatch": MINIBATCH, "test_images": len(test), "of": len(dataset.test)}
    return Instrument("similarity", settings, apply, with_teacher=True)


def _entropy(dataset: Dataset, images: int | None) -> Instrument:
    splits = {"training": _spread(dataset.train, images), "test": _first(dataset.test, images)}

    def apply(network: StagedNet, teacher: StagedNet | None, fabric: Fabric) -> Found:
        found: dict[str, float] = {}
        for part, split in splits.items():
            sure = confidence(network, split.to(fabric.device), dataset.normalisation, fabric)
            found |= {f"{name}, {part}": value for name, value in sure.items()}
        return found, {}

    settings = {
        "bins": BINS,
        "training_images": len(splits["training"]),
        "test_images": len(splits["test"]),
        "of": len(dataset.test),
    }
    return Instrument("entropy", settings, apply)


def _first(split: Split, images: int | None) -> Split:
    """The first images of a test split, in the order that official files of corrupted images use."""
    return split if images is None else Split(split.images[:images], split.labels[:images])


def _spread(split: Split, images: int | None) -> Split:
    """Images at even intervals over the whole split, so that one that is sorted by class keeps all classes."""
    if images is None or images >= len(split):
        return split
    index = torch.arange(images) * len(split) // images
    return Split(split.images[index], split.labels[index])
