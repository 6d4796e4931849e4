"""Trained networks as people name them, by the folder of a run or a file of weights, and the images they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.networks import PRETRAINED, build, check_name
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights, read_metadata, read_state
from sftn.runs.build import load_teacher, reloaded
from sftn.runs.folder import read_run
from sftn.spec.run import Run, Weights

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Subject:
    """A trained network that is looked at."""

    source: Run | Weights
    folder: Path
    """Of all runs, or of the file."""
    run: Run | None
    """Where the file lies in a run's folder, what made it."""

    @property
    def name(self) -> str:
        """In tables."""
        if self.run is not None:
            return f"{self.run.name} (seed {self.run.seed})"
        return f"{self.source.name if isinstance(self.source, Run) else self.source.network} ({self.weights.name})"

    @property
    def weights(self) -> Path:
        """Its file."""
        return self.folder / self.source.folder / WEIGHTS if isinstance(self.source, Run) else Path(self.source.path)

    @property
    def identity(self) -> str:
        """What changes with the network."""
        return self.source.id if isinstance(self.source, Run) else self.source.sha256

    def network(self, dataset: Dataset) -> StagedNet:
        """The trained network for the classes and images of a data set.

        Raises:
            InputError: the run is not done, or the weights are another network's or of other classes.
        """
        return load_teacher(self.source, dataset, self.folder)

    def network_alone(self, image: tuple[int, int]) -> StagedNet:
        """The trained network with the classes and channels that its weights have, for images of (H, W).

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
                    network = build(self.source.network.removesuffix(PRETRAINED), classes, channels, image)
                    load_weights(network, self.weights)
                except InputError as error:
                    wrong = error
                else:
                    return network
        raise wrong


def subject(what: str, network: str | None = None) -> Subject:
    """The trained network that a person names.

    Args:
        what: the folder of a run, or a file of weights.
        network: the network that a file belongs to, where the file does not say it.

    Raises:
        InputError: there is none, or it is not said which network it is.
    """
    path, run = Path(what), None
    if path.is_dir():
        run = read_run(path)
        if path.resolve().name == run.folder:
            return Subject(run, path.resolve().parent, run)
        path, network = path / WEIGHTS, run.network
    if not path.is_file():
        raise InputError(f"{what} is neither the folder of a run nor a file of weights")
    name = network or read_metadata(path).get("network")
    if name is None:
        raise InputError(f"{path} does not say which network it is of: name it with --network")
    check_name(name)
    with open(path, "rb") as file:
        weights = Weights(name, hashlib.file_digest(file, "sha256").hexdigest(), str(path))
    return Subject(weights, path.parent, run)


def teacher_of(student: Subject) -> Subject:
    """The teacher that a run's student learned from, in the same folder of runs.

    Raises:
        InputError: it had none, or nothing is known of it.
    """
    source = None if student.run is None else student.run.teacher
    if source is None:
        raise InputError(f"{student.name} says nothing of a teacher: name one with --teacher")
    return Subject(source, student.folder, source if isinstance(source, Run) else None)


def images_of(
    subjects: Sequence[Subject],
    data: str | None = None,
    data_dir: Path | None = None,
    size: int | None = None,
) -> tuple[Dataset, list[str]]:
    """The images that some networks are tested on: those asked for, or those of the first run.

    Returns:
        The data set, and what a person should know about it.

    Raises:
        InputError: no images are named and no network is of a run, or they cannot be loaded.
    """
    if data is not None:
        return load(data, data_dir=data_dir, size=size), []
    run = next((one.run for one in subjects if one.run is not None), None)
    if run is None:
        raise InputError("say which images with --data: files of weights do not")
    own = run.data
    dataset = reloaded(own, data_dir)
    notes = []
    if dataset.identity != own.fingerprint:
        notes.append(f"note: {own.name} holds other images now than when {run.name} was trained")
    return dataset, notes
