"""Turns the options that a person gives into what a run records: data set, schedule and alignment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sftn.data.batch import check_shares
from sftn.data.dataset import Dataset
from sftn.data.load import load, located
from sftn.errors import InputError
from sftn.networks import NETWORKS
from sftn.networks.weight_files import file_and_part, file_digest
from sftn.runs.trained import Trained
from sftn.runtime.device import settle_precision
from sftn.spec.alignment import Alignment
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Data, Run, Weights
from sftn.spec.teacher_file import TeacherFile
from sftn.spec.training import Training
from sftn.tasks import recipes


def load_images(asked: Images) -> Dataset:
    """Load the data set that the options name.

    Raises:
        InputError: the data set is unknown, missing or damaged.
    """
    return load(
        asked.data,
        data_dir=asked.data_dir,
        limit=asked.limit,
        classes=asked.classes,
        size=asked.size,
        download=asked.download,
        stream=asked.stream or None,
        memory=asked.memory,
        damaged=asked.damaged,
        workers=asked.workers,
    )


def plain_run(
    network: str, dataset: Dataset, images: Images, training: Training, execution: Execution, seed: int = 0
) -> Run:
    """The run that trains a network on labels alone.

    Raises:
        InputError: the recipe is unknown, or the batch does not suit the number of images or processes.
    """
    schedule = recipes.schedule(
        training.recipe,
        network,
        epochs=training.epochs,
        batch=training.batch,
        lr=training.lr,
        milestones=training.milestones,
    )
    if schedule.batch > len(dataset.train):
        raise InputError(
            f"batch {schedule.batch} is larger than the {len(dataset.train)} training images: give a smaller --batch"
        )
    processes = execution.devices * execution.nodes
    if processes > 1:
        check_shares(len(dataset.train), schedule.batch, (0, processes), least=1 if training.sync_bn else 2)
    damaged: Literal["refuse", "skip"] = "skip" if dataset.skipped else "refuse"
    name, path = located(images.data, images.data_dir)
    which = Data(name, dataset.identity, images.limit, images.classes, images.size, dataset.streamed, damaged, path)
    precision = settle_precision(training.precision, execution.device)
    shares = 1 if training.sync_bn else processes
    return Run(network, which, seed, schedule, precision, on_nan=training.on_nan, norm_shares=shares)


def start(teacher: str, about: TeacherFile) -> Weights | None:
    """The weights that a teacher starts from, if it is given as a file of weights or a run's folder; None for a name.

    Args:
        teacher: a network's name, a weights file (`FILE#PART` for one of several sets in it) or the folder of a run.
        about: what a file does not record.

    Raises:
        InputError: the file or its network is unknown, or something is said about a file and there is none.
    """
    if teacher in NETWORKS or not file_and_part(teacher)[0].exists():
        if about != TeacherFile():
            raise InputError(f"there is no weights file at {teacher}: --teacher-network and the like are for one")
        return None
    found = Trained.of(teacher, about=about)
    if isinstance(found.source, Weights):
        return found.source
    return Weights(found.source.network, file_digest(found.weights), str(found.weights))


def alignment(pairs: Sequence[str], students: Sequence[str]) -> Alignment | None:
    """Parse `--align`: `2:1 3:2` pairs student stage 2 with teacher stage 1, and 3 with 2; a `Run` counts from 0.

    Raises:
        InputError: the pairs are malformed, or there are several students.
    """
    if not pairs:
        return None
    if len(students) > 1:
        raise InputError("--align works for one student only: train a teacher for each student separately")
    found = [re.fullmatch(r"(\d+):(\d+)", pair) for pair in pairs]
    if not all(found):
        raise InputError(f"--align {' '.join(pairs)}: write STUDENT_STAGE:TEACHER_STAGE, as in 2:1 3:2 4:3")
    return tuple((int(match[1]) - 1, int(match[2]) - 1) for match in found if match)
