"""What is shipped: the network that a finished run left, its teacher's, and the images that both are checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.deploy.classifier import Classifier, trained
from sftn.deploy.preprocessing import Images
from sftn.errors import InputError
from sftn.runs.build import reloaded
from sftn.runs.folder import read_run, result
from sftn.runs.result import images_as_given
from sftn.spec.run import Run
from sftn.storage.json_files import sha256

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Source:
    """A trained network and what is known of it."""

    classifier: Classifier
    run: Run | None
    """None where it comes from a file."""
    result: Mapping[str, Any]
    """Of the run; empty where there is none."""
    folder: Path
    """The run's, or the file's."""


def of_run(folder: Path, dataset: Dataset | None = None) -> Source:
    """What a finished run left.

    Args:
        folder: of the run.
        dataset: says what the network is given where the run's result does not yet, being of an older version.

    Raises:
        InputError: it is no run's folder, the run is not finished or its weights are not those that were measured.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no run's folder: give one of those that sftn runs list shows")
    run = read_run(folder)
    done = result(folder, run)
    if done is None:
        raise InputError(f"{folder.name} is not finished: train it to its end first")
    path = folder / WEIGHTS
    if done.get("weights_sha256") and path.is_file() and sha256(path) != done["weights_sha256"]:
        raise InputError(f"{path} is not the file that the result was measured on: train the run again")
    given = done.get("images")
    if given is None and dataset is None:
        raise InputError(
            f"{folder.name} is of a version that did not record what its network is given: name its images with "
            "--data, or train it again"
        )
    if given is None and dataset is not None:
        given = images_as_given(dataset)
    images = Images.read(given, str(folder / "result.json"))
    return Source(Classifier(trained(run.network, images, path), images, run.network), run, done, folder)


def teacher_of(student: Source) -> Source | None:
    """The teacher of a distilled student; None if it had none.

    Raises:
        InputError: it had one, which is not there any more.
    """
    teacher = None if student.run is None else student.run.teacher
    if teacher is None:
        return None
    images = student.classifier.images  # the teacher was given what the student was
    if isinstance(teacher, Run):
        folder = student.folder.resolve().parent / teacher.folder
        done = result(folder, teacher) if folder.is_dir() else None
        path, network, run, known = folder / WEIGHTS, teacher.network, teacher, done or {}
    else:
        path, network, run, known = Path(teacher.path), teacher.network, None, {}
        folder = path
    if not path.is_file():
        raise InputError(f"the teacher {network} is not there: {path} is missing")
    return Source(Classifier(trained(network, images, path), images, network), run, known, folder)


def images_of(
    run: Run, images: Images | None, data: str | None, data_dir: Path | None, say: Callable[[str], None]
) -> Dataset:
    """The images that a run was trained and tested on, or those that are asked for instead.

    Args:
        run: whose images.
        images: what its network is given; None if only the data set can tell.
        data: the name of other images; None for the run's.
        data_dir: where their files are.
        say: is told if they are not what they were in training.

    Raises:
        InputError: they are not there, or are of another shape or number of classes than the network's.
    """
    own = run.data
    if data is None or data == own.name:
        dataset = reloaded(own, data_dir)
        if dataset.identity != own.fingerprint:
            say(f"note: {own.name} holds other images now than when {run.name} was trained")
    else:
        dataset = load(data, data_dir=data_dir, classes=own.classes, size=own.size)
    if images is not None and (dataset.image != images.shape or dataset.classes != images.classes):
        theirs, ours = ("×".join(map(str, shape)) for shape in (dataset.image, images.shape))
        raise InputError(
            f"{dataset.name} has {len(dataset.classes)} classes of {theirs} images, but {run.name} learned "
            f"{len(images.classes)} of {ours}, by these names: give the data that it was trained on"
        )
    return dataset
