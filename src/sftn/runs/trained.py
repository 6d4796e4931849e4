"""Trained networks as people name them, by the folder of a run or a file of weights; and whether a run is intact."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.networks import check_name
from sftn.networks.staged import StagedNet
from sftn.networks.weights import network_from_file, read_metadata, read_state
from sftn.runs.build import load_data, load_network
from sftn.runs.folder import DONE, RunFolder
from sftn.runtime.device import make_fabric
from sftn.runtime.environment import changes
from sftn.spec.run import Run, Weights
from sftn.storage.json_files import sha256
from sftn.training.evaluate import evaluate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained network: what a run left, or a file of weights."""

    source: Run | Weights
    """What a run that learns from this network records as its teacher."""
    weights: Path
    """Its file."""
    run: Run | None
    """What made it; None for a file that lies in no run's folder."""

    @staticmethod
    def of(what: str | Path, network: str | None = None, out: Path | None = None) -> Trained:
        """The trained network that a person names.

        Args:
            what: the folder of a run, or a file of weights.
            network: the network that a file belongs to, where the file does not say it.
            out: the folder of all runs: one that lies elsewhere is known by its weights alone. None for anywhere.

        Raises:
            InputError: there is none, or nothing says which network it is.
        """
        path, run = Path(what), None
        if path.is_dir():
            folder = RunFolder(path.resolve())
            run = folder.run()
            if folder.name == run.folder and (out is None or folder.path.parent == out.resolve()):
                return Trained(run, folder.weights, run)
            path, network = RunFolder(path).weights, run.network
        if not path.is_file():
            raise InputError(f"{what} is neither the folder of a run nor a file of weights")
        name = network or read_metadata(path).get("network")
        if name is None:
            raise InputError(f"{path} does not say which network it is of: name it (--network, --teacher-network)")
        check_name(name)
        return Trained(Weights(name, sha256(path), str(path)), path, run)

    @property
    def name(self) -> str:
        """In tables."""
        if self.run is not None:
            return f"{self.run.name} (seed {self.run.seed})"
        return f"{self.source.network} ({self.weights.name})"

    @property
    def identity(self) -> str:
        """What changes with the network."""
        return self.source.id if isinstance(self.source, Run) else self.source.sha256

    def result(self) -> dict[str, Any] | None:
        """The result of the run that made it; None if that is not done, or not known.

        Raises:
            InputError: the result is damaged.
        """
        return None if self.run is None else RunFolder(self.weights.parent).result(self.run)

    def teacher(self) -> Trained:
        """The teacher that this network learned from, in the same folder of runs.

        Raises:
            InputError: it had none, or nothing is known of it.
        """
        source = None if self.run is None else self.run.teacher
        if source is None:
            raise InputError(f"nothing is known of a teacher of {self.name}: name one with --teacher")
        if isinstance(source, Run):
            return Trained(source, RunFolder(self.weights.parent).beside(source).weights, source)
        return Trained(source, Path(source.path), None)

    def images(self, data: str | None = None, data_dir: Path | None = None, size: int | None = None) -> Dataset:
        """The images that the network was trained on, or others that are asked for; a change of the former is reported.

        Args:
            data: the name of other images; None for the run's own.
            data_dir: where their files are.
            size: height and width of other images.

        Raises:
            InputError: no images are named and no run is known, or they cannot be loaded.
        """
        own = None if self.run is None else self.run.data
        if own is None or (data is not None and (data != own.name or size not in (None, own.size))):
            if data is None:
                raise InputError(f"say which images with --data: {self.weights} does not")
            return load(data, data_dir=data_dir, classes=None if own is None else own.classes, size=size)
        dataset = load_data(own, data_dir)
        if dataset.identity != own.fingerprint:
            logger.warning(f"{own.name} holds other images now than when {self.name} was trained")
        return dataset

    def network(self, dataset: Dataset) -> StagedNet:
        """The network, for the classes and images of a data set.

        Raises:
            InputError: the run is not done, or the weights are another network's or of other classes.
        """
        return load_network(self.source, dataset, self.weights.parent.parent)

    def network_alone(self, image: tuple[int, int]) -> StagedNet:
        """The network with the classes and channels that its weights have, for images of (H, W).

        Raises:
            InputError: there are no weights, or they are not the network's.
        """
        if not self.weights.is_file():
            raise InputError(f"{self.name} is not trained yet: there is no {self.weights}")
        said = read_metadata(self.weights).get("classes", "")
        # Only a matrix that is there may say how many classes are built.
        rows = sorted(
            {len(tensor) for tensor in read_state(self.weights).values() if tensor.dim() == 2 and tensor.numel()}
        )
        wrong = InputError(f"{self.weights} holds no classifier of images")
        # A foreign file does not say which of its matrices is the classifier; loading checks every shape.
        for classes in [row for row in rows if str(row) == said] or rows:
            for channels in (3, 1):
                try:
                    return network_from_file(self.source.network, self.weights, classes, (channels, *image))
                except InputError as error:
                    wrong = error
        raise wrong


def verify(folder: RunFolder, dataset: Dataset, device: str = "auto") -> list[str]:
    """What is wrong with a finished run; its network is evaluated again and must do exactly as recorded.

    Where it does not, it is reported in what this environment differs from the recorded one.

    Args:
        folder: of the run.
        dataset: the images that it was trained on.
        device: auto, cpu, cuda or mps; on another one than the run's, rounding may change an image.
    """
    found = folder.faults()
    entry = folder.inspect()
    if entry.state != DONE or entry.run is None or entry.result is None:
        return found
    if dataset.identity != entry.run.data.fingerprint:
        return [*found, f"the images are not those of {entry.run.data.name} that it was trained on: check --data-dir"]
    fabric = make_fabric(device, entry.run.precision)
    try:
        network = load_network(entry.run, dataset, folder.path.parent).to(fabric.device)
    except InputError as error:
        return [*found, str(error)]
    again = evaluate(network, dataset.test.to(fabric.device), dataset.normalisation, fabric)["accuracy"]
    if again != entry.result["accuracy"]:
        found.append(f"{folder.name} recorded {entry.result['accuracy']:.4f} % but does {again:.4f} %")
        elsewhere = changes(entry.result.get("environment", {}), str(fabric.device))
        if elsewhere:
            logger.warning(f"{folder.name} was measured elsewhere: {', '.join(elsewhere)}")
    return found
