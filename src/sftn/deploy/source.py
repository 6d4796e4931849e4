"""What is exported: a finished run's network, its teacher's, and the images for checking both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.deploy.classifier import Classifier
from sftn.deploy.preprocessing import Images
from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.runs.result import images_as_given
from sftn.runs.trained import Trained
from sftn.spec.run import Run
from sftn.storage.json_files import sha256


@dataclass(frozen=True)
class Source:
    """The network of a finished run, with its record and result."""

    classifier: Classifier
    trained: Trained
    run: Run
    result: Mapping[str, Any]

    @staticmethod
    def of(folder: Path, data: str | None = None, data_dir: Path | None = None) -> Source:
        """Load a finished run.

        Args:
            folder: folder of the run.
            data: images of the network, if the run's result comes from a version that did not record the input.
            data_dir: folder of these images' files.

        Raises:
            InputError: it is not a run's folder, the run is not finished, or its weights are not those of its result.
        """
        if not folder.is_dir():
            raise InputError(f"{folder} is not a run's folder: give one that sftn runs list shows")
        at = RunFolder(folder)
        run = at.run()
        result = at.result(run)
        if result is None:
            raise InputError(f"{folder.name} is not finished: finish its training first")
        if result.get("weights_sha256") and at.weights.is_file() and sha256(at.weights) != result["weights_sha256"]:
            raise InputError(f"{at.weights} is not the file that the result was measured with: train the run again")
        trained = Trained.of(folder)
        given = result.get("images")
        if given is None:
            if data is None:
                raise InputError(
                    f"{folder.name} comes from a version that did not record its network's input: name its images "
                    "with --data, or train it again"
                )
            given = images_as_given(trained.images(data, data_dir, run.data.size))
        images = Images.read(given, str(at.result_json))
        return Source(Classifier.of(run.network, images, trained.weights), trained, run, result)

    def teacher(self, dataset: Dataset) -> Classifier | None:
        """Load the teacher of a distilled student, as it fits the student's images; None if there is none.

        Raises:
            InputError: the teacher no longer exists, or does not know the classes.
        """
        if self.run.teacher is None:
            return None
        network = self.trained.teacher().network(dataset)
        return Classifier(network, self.classifier.images, self.run.teacher.network)

    def images(self, data: str | None, data_dir: Path | None) -> Dataset:
        """Load the images that the run was trained and tested on, or others.

        Args:
            data: name of other images; None for the run's.
            data_dir: folder of their files.

        Raises:
            InputError: they are missing, or their shape or classes do not fit the network.
        """
        dataset, own = self.trained.images(data, data_dir, self.run.data.size), self.classifier.images
        if dataset.image != own.shape or dataset.classes != own.classes:
            theirs, ours = ("×".join(map(str, shape)) for shape in (dataset.image, own.shape))
            raise InputError(
                f"{dataset.name} has {len(dataset.classes)} classes of {theirs} images, but {self.run.name} learned "
                f"{len(own.classes)} of {ours} (names count, too): give the data that it was trained on"
            )
        return dataset
