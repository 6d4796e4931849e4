"""Trained networks, found by the folder of a run or a weights file; and a check that a finished run is intact."""

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
from sftn.runs.threads import threads_kept, use_recorded
from sftn.runtime.device import make_fabric
from sftn.runtime.environment import changes
from sftn.spec.run import Run, Weights
from sftn.storage.json_files import sha256
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
    def of(what: str | Path, network: str | None = None, out: Path | None = None) -> Trained:
        """Find a trained network by its run's folder or its weights file.

        Args:
            what: the folder of a run, or a weights file.
            network: the architecture's name, for a file that does not record it.
            out: the folder of all runs: a run elsewhere is identified by its weights alone. None accepts any place.

        Raises:
            InputError: there is no such network, or its architecture is unknown.
        """
        path, run = Path(what), None
        if path.is_dir():
            folder = RunFolder(path.resolve())
            run = folder.run()
            if folder.name == run.folder and (out is None or folder.path.parent == out.resolve()):
                return Trained(run, folder.weights, run)
            path, network = RunFolder(path).weights, run.network
        if not path.is_file():
            raise InputError(f"{what} is neither the folder of a run nor a weights file")
        name = network or read_metadata(path).get("network")
        if name is None:
            raise InputError(f"{path} does not record its network: name it with --network or --teacher-network")
        check_name(name)
        return Trained(Weights(name, sha256(path), str(path)), path, run)

    @property
    def name(self) -> str:
        """Its name in tables."""
        if self.run is not None:
            return f"{self.run.name} (seed {self.run.seed})"
        return f"{self.source.network} ({self.weights.name})"

    @property
    def identity(self) -> str:
        """A hash that identifies the network: the run's id, or the file's SHA-256."""
        return self.source.id if isinstance(self.source, Run) else self.source.sha256

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
        if own is None or (data is not None and (data != own.name or size not in (None, own.size))):
            if data is None:
                raise InputError(f"{self.weights} does not record its data set: name one with --data")
            return load(data, data_dir=data_dir, classes=None if own is None else own.classes, size=size)
        dataset = load_data(own, data_dir)
        if dataset.identity != own.fingerprint:
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
        rows = sorted(
            {len(tensor) for tensor in read_state(self.weights).values() if tensor.dim() == 2 and tensor.numel()}
        )
        wrong = InputError(f"{self.weights} holds no image classifier")
        # A foreign file does not record which matrix is the classifier; loading checks every shape.
        for classes in [row for row in rows if str(row) == said] or rows:
            for channels in (3, 1):
                try:
                    return network_from_file(self.source.network, self.weights, classes, (channels, *image))
                except InputError as error:
                    wrong = error
        raise wrong


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
    if dataset.identity != entry.run.data.fingerprint:
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
