"""The one check that a trained network fits the images it is given: class names and their order, channels, size, mean.

What can be mended is: classes in another order, or among others, are found by name, and a network gets its images as
normalised in its own training. What cannot be is refused.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftn.data.dataset import Dataset
from sftn.errors import InputError, printable
from sftn.networks.input_scale import Normalisation, rescale
from sftn.networks.staged import StagedNet
from sftn.networks.weight_files import read_metadata
from sftn.runs.folder import RunFolder
from sftn.runtime.leader import leads
from sftn.spec.run import Run, Weights
from sftn.storage.json_files import read_json

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is recorded of the images that a network was trained on; None where nothing is."""

    classes: tuple[str, ...] | None = None
    """Names of the classes, in the order of the logits."""
    shape: tuple[int, ...] | None = None
    """(C, H, W)"""
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of each channel, pixels in 0..255."""

    @staticmethod
    def of(source: Run | Weights, out: Path) -> Known:
        """Read what a run or a weights file records.

        Args:
            source: the run, or the file.
            out: the folder of all runs.

        Raises:
            InputError: the record is damaged.
        """
        if isinstance(source, Run):
            folder = RunFolder(out / source.folder)
            result = folder.result(source) or {}
            said = {} if "images" in result or not folder.weights.is_file() else read_metadata(folder.weights)
            return _read(result.get("images") or _stated(said), folder.result_json)
        path = Path(source.path)
        said = read_metadata(path)
        record = _stated(said)
        if not record and RunFolder(path.parent).result_json.is_file():
            result = read_json(RunFolder(path.parent).result_json)
            record = result.get("images") if result.get("weights_sha256") == source.sha256 else None
        found = _read(record or {}, path)
        if source.classes is not None:
            found = replace(found, classes=source.classes)
        if source.mean is not None and source.std is not None:
            found = replace(found, normalisation=(source.mean, source.std))
        return found


def _stated(said: Mapping[str, str]) -> Any:
    """The record in the metadata of a file: `images`, or what earlier versions stored."""
    return said["images"] if "images" in said else {name: said[name] for name in ("mean", "std") if name in said}


def _read(record: Any, where: Path) -> Known:
    try:
        if isinstance(record, str):
            record = json.loads(record)
        parts = {name: json.loads(part) if isinstance(part, str) else part for name, part in record.items()}
        classes, shape = parts.get("classes"), parts.get("shape")
        normalisation = None
        if "mean" in parts and "std" in parts:
            mean, std = (tuple(map(float, parts[name])) for name in ("mean", "std"))
            if len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
                raise ValueError("mean and standard deviation do not fit each other")
            normalisation = mean, std
        names = None if classes is None else tuple(printable(str(name)) for name in classes)
        return Known(names, None if shape is None else tuple(map(int, shape)), normalisation)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where} has an invalid record of its images ({error}): train the network again") from error


@dataclass(frozen=True)
class Fit:
    """How a network is made to fit images."""

    columns: tuple[int, ...] | None = None
    """For each class of the images, its place among the network's; None for the same classes in the same order."""
    normalisation: Normalisation | None = None
    """The network's own, if it is known."""
    notes: tuple[str, ...] = ()
    """What was mended."""
    warnings: tuple[str, ...] = ()
    """What could not be compared, or may make the network worse."""

    @staticmethod
    def of(known: Known, dataset: Dataset, who: str) -> Fit:
        """Compare what is known of a network with images.

        Args:
            known: what is recorded with the network.
            dataset: the images.
            who: the network's name, for messages.

        Raises:
            InputError: the network does not know a class of the images, or reads images of other channels.
        """
        notes, warnings = [], []
        columns, said, warned = _columns(known.classes, dataset, who)
        notes += said
        warnings += warned
        if known.shape is not None and tuple(known.shape) != dataset.image:
            if known.shape[0] != dataset.image[0]:
                raise InputError(
                    f"{who} was trained on images of {known.shape[0]} channels, not {dataset.image[0]} as "
                    f"{dataset.name} has: give images with as many channels"
                )
            theirs, ours = ("×".join(map(str, shape[1:])) for shape in (known.shape, dataset.image))
            warnings.append(
                f"{who} was trained on images of {theirs} and gets {ours} here: it may do worse than on its own size"
            )
        own = None
        if known.normalisation is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32) for values in known.normalisation)
            if len(mean) == len(std) == 1:
                mean, std = (values.expand(dataset.image[0]) for values in (mean, std))
            if not len(mean) == len(std) == dataset.image[0]:
                raise InputError(f"{who} was trained on images of {len(mean)} channels, not {dataset.image[0]}")
            own = mean, std
            if not all(torch.equal(one, other) for one, other in zip(own, dataset.normalisation)):
                notes.append(f"{who} gets its images normalised by the mean and deviation of its own training")
        return Fit(columns, own, tuple(notes), tuple(warnings))

    @staticmethod
    def of_start(known: Known, dataset: Dataset, who: str) -> tuple[Fit, bool]:
        """The same for weights that training starts from, and whether they need a new classifier.

        Training adapts them to another normalisation and size, so neither is mended.
        """
        try:
            fit = Fit.of(known, dataset, who)
        except InputError:
            if known.shape is not None and known.shape[0] != dataset.image[0]:
                raise
            return Fit(notes=(f"{who} does not know the classes of {dataset.name}: its classifier is new",)), True
        named = known.classes is not None and fit.columns is not None
        return replace(fit, normalisation=None, notes=fit.notes[:1] if named else ()), False

    def apply(self, network: StagedNet, dataset: Dataset) -> None:
        """Let a loaded network read the images as in its own training, in place."""
        if self.normalisation is not None:
            rescale(network, dataset.normalisation, self.normalisation)

    def tell(self) -> None:
        """Log what was mended or could not be compared."""
        if leads():
            for note in self.notes:
                logger.info(note)
            for warning in self.warnings:
                logger.warning(warning)


def _columns(
    theirs: tuple[str, ...] | None, dataset: Dataset, who: str
) -> tuple[tuple[int, ...] | None, list[str], list[str]]:
    ours = dataset.classes
    if theirs is None or theirs == ours:
        return None, [], []
    if len(theirs) == len(ours) and _numbers(theirs) != _numbers(ours):
        numbered, named = (who, dataset.name) if _numbers(theirs) else (dataset.name, who)
        return None, [], [f"{numbered} only numbers its classes: they are taken to be in the order of {named}'s"]
    missing = [name for name in ours if name not in theirs]
    if missing or len(set(theirs)) < len(theirs) or len(set(ours)) < len(ours):
        raise InputError(
            f"{who} was trained on {_few(theirs)}, and {dataset.name} has {_few(ours)}: "
            + (f"it knows no {' or '.join(missing[:3])}{' …' * (len(missing) > 3)}; " if missing else "")
            + "give images of its classes, or train it on these (sftn train-teacher --teacher, with its file or run)"
        )
    columns = tuple(theirs.index(name) for name in ours)
    if len(theirs) == len(ours):
        return columns, [f"{who} has the classes of {dataset.name} in another order: they are matched by name"], []
    return columns, [f"{who} knows {len(theirs)} classes: the {len(ours)} of {dataset.name} are found by name"], []


def _numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def _few(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{len(names)} classes ({shown}{', …' if len(names) > most else ''})"
