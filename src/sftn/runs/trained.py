"""Trained networks, found by the folder of a run or a weights file; and a check that a finished run is intact."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.data.load import load, located
from sftn.errors import InputError
from sftn.networks import check_name
from sftn.networks.staged import StagedNet
from sftn.networks.weight_files import file_and_part, file_digest, read_metadata, read_sets
from sftn.networks.weights import network_from_file
from sftn.runs.build import load_data, load_network
from sftn.runs.folder import DONE, RunFolder
from sftn.runs.threads import threads_kept, use_recorded
from sftn.runtime.device import make_fabric
from sftn.runtime.environment import changes
from sftn.spec.run import Data, Run, Weights
from sftn.spec.teacher_file import TeacherFile
from sftn.storage.records import read_text
from sftn.training.evaluate import evaluate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained network: that of a run, or of a weights file."""

    source: Run | Weights
    """What a run that distils this network records as its teacher."""
    weights: Path
    """Its weights file."""
    run: Run | None
    """The run that trained it; None for a file outside any run's folder."""

    @staticmethod
    def of(
        what: str | Path,
        network: str | None = None,
        out: Path | None = None,
        about: TeacherFile = TeacherFile(),
    ) -> Trained:
        """Find a trained network by its run's folder or its weights file.

        Args:
            what: the folder of a run, or a weights file; `FILE#PART` for one of several sets of weights in it.
            network: the architecture's name, for a file that does not record it.
            out: the folder of all runs: a run elsewhere is identified by its weights alone. None accepts any place.
            about: what a file does not record; its network counts if `network` is None.

        Raises:
            InputError: there is no such network, or its architecture is unknown.
        """
        (path, part), run = file_and_part(what), None
        if path.is_dir():
            folder = RunFolder(path.resolve())
            run = folder.run()
            if folder.name == run.folder and (out is None or folder.path.parent == out.resolve()):
                return Trained(run, folder.weights, run)
            path, network = RunFolder(path).weights, run.network
        if not path.is_file():
            raise InputError(f"{what} is neither the folder of a run nor a weights file")
        name = network or about.teacher_network or read_metadata(path).get("network")
        if name is None:
            raise InputError(
                f"{path} does not record its network: name it with --teacher-network (a teacher's) or --network"
            )
        check_name(name)
        mean, std = (_levels(values) for values in (about.teacher_mean, about.teacher_std))
        if (mean is None) != (std is None):
            raise InputError("give --teacher-mean and --teacher-std together, or neither")
        if std is not None and not min(std) > 0:
            raise InputError(f"--teacher-std {' '.join(map(str, about.teacher_std))}: it must be above 0")
        classes = class_names(about.teacher_classes)
        return Trained(Weights(name, file_digest(path), os.path.abspath(path), part, classes, mean, std), path, run)

    @property
    def name(self) -> str:
        """Its name in tables."""
        if self.run is not None:
            return f"{self.run.name} (seed {self.run.seed})"
        return self.source.name

    @property
    def identity(self) -> str:
        """A hash that identifies the network: the run's id, or the file's SHA-256."""
        if isinstance(self.source, Run):
            return self.source.id
        return self.source.sha256 + ("" if self.source.part is None else f"#{self.source.part}")

    def result(self) -> dict[str, Any] | None:
        """The result of the run that trained it; None if the run is not done or unknown.

        Raises:
            InputError: the result is damaged.
        """
        return None if self.run is None else RunFolder(self.weights.parent).result(self.run)

    def teacher(self) -> Trained:
        """The teacher that this network was distilled from, in the same folder of runs.

        Raises:
            InputError: the network had no teacher, or it is not recorded.
        """
        source = None if self.run is None else self.run.teacher
        if source is None:
            raise InputError(f"no teacher of {self.name} is recorded: name one with --teacher")
        if isinstance(source, Run):
            return Trained(source, RunFolder(self.weights.parent).beside(source).weights, source)
        return Trained(source, Path(source.path), None)

    def images(self, data: str | None = None, data_dir: Path | None = None, size: int | None = None) -> Dataset:
        """Load the images that the network was trained on, or others; a warning is logged if the former have changed.

        Args:
            data: the name of another data set; None for the run's own.
            data_dir: the folder with its files.
            size: height and width of the images of another data set.

        Raises:
            InputError: no data set is named and no run is recorded, or the images cannot be loaded.
        """
        own = None if self.run is None else self.run.data
        if own is None or (data is not None and (not _named(own, data, data_dir) or size not in (None, own.size))):
            if data is None:
                raise InputError(f"{self.weights} does not record its data set: name one with --data")
            return load(data, data_dir=data_dir, classes=None if own is None else own.classes, size=size)
        dataset = load_data(own, data_dir)
        if not dataset.matches(own.fingerprint):
            logger.warning(f"the images of {own.name} have changed since {self.name} was trained")
        return dataset

    def network(self, dataset: Dataset) -> StagedNet:
        """Load the network for the classes and images of a data set.

        Raises:
            InputError: the run is not done, or the weights belong to another network or other classes.
        """
        return load_network(self.source, dataset, self.weights.parent.parent)

    def network_alone(self, image: tuple[int, int]) -> StagedNet:
        """Load the network with the classes and channels of its weights, for images of (H, W).

        Raises:
            InputError: the weights are missing, or do not fit the network.
        """
        if not self.weights.is_file():
            raise InputError(f"{self.name} is not trained yet: there is no {self.weights}")
        said = read_metadata(self.weights).get("classes", "")
        # The number of classes must be that of a matrix in the file, whatever the metadata claim.
        part = self.source.part if isinstance(self.source, Weights) else None
        tensors = [tensor for state in read_sets(self.weights, part).values() for tensor in state.values()]
        rows = sorted({len(tensor) for tensor in tensors if tensor.dim() == 2 and tensor.numel()})
        wrong = InputError(f"{self.weights} holds no image classifier")
        # A foreign file does not record which matrix is the classifier; loading checks every shape.
        for classes in [row for row in rows if str(row) == said] or rows:
            for channels in (3, 1):
                try:
                    return network_from_file(self.source.network, self.weights, classes, (channels, *image), part)
                except InputError as error:
                    wrong = error
        raise wrong


def class_names(path: Path | None) -> tuple[str, ...] | None:
    """Read names of classes from a text file, one a line; None for no file.

    Raises:
        InputError: the file cannot be read, or names fewer than two classes or one twice.
    """
    if path is None:
        return None
    names = tuple(filter(None, map(str.strip, read_text(path).splitlines())))
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"{path} must name at least 2 classes, each once, one a line: it names {len(set(names))}")
    return names


def _levels(values: Sequence[float]) -> tuple[float, ...] | None:
    """From pixels in 0..1 to pixels in 0..255; None for no values."""
    return tuple(255 * value for value in values) or None


def _named(own: Data, data: str, data_dir: Path | None) -> bool:
    """Whether a name given by a person is that of a run's own images."""
    name, path = located(data, data_dir)
    return path == own.path if path is not None and own.path is not None else data == own.name or name == own.name


def verify(folder: RunFolder, dataset: Dataset, device: str = "auto") -> list[str]:
    """List what is wrong with a finished run; its network is evaluated again and must score exactly as recorded.

    On a CPU it is evaluated with the recorded number of threads. If the score is another one, the differences between
    this environment and the recorded one are logged.

    Args:
        folder: the run's folder.
        dataset: the images that it was trained on.
        device: auto, cpu, cuda or mps; on a device other than the run's, rounding may change the predicted class of an
            image.
    """
    found = folder.faults()
    entry = folder.inspect()
    if entry.state != DONE or entry.run is None or entry.result is None:
        return found
    if not dataset.matches(entry.run.data.fingerprint):
        return [*found, f"the images are not those of {entry.run.data.name} that it was trained on: check --data-dir"]
    fabric = make_fabric(device, entry.run.precision)
    try:
        network = load_network(entry.run, dataset, folder.path.parent).to(fabric.device)
    except InputError as error:
        return [*found, str(error)]
    how = entry.result.get("environment", {})
    with threads_kept():
        if fabric.device.type == "cpu":
            use_recorded(how)
        again = evaluate(network, dataset.test.to(fabric.device), dataset.normalisation, fabric)["accuracy"]
        elsewhere = changes(how, str(fabric.device))
    if again != entry.result["accuracy"]:
        found.append(f"{folder.name} recorded {entry.result['accuracy']:.4f} % but scores {again:.4f} %")
        if elsewhere:
            logger.warning(f"{folder.name} was measured elsewhere: {', '.join(elsewhere)}")
    return found
