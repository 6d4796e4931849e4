"""From what a person asks for to what a run records: images, schedule, alignment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sftn.data.batch import check_shares
from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.runtime.device import settle_precision
from sftn.spec.alignment import Alignment
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Data, Run
from sftn.spec.training import Training
from sftn.tasks import recipes


def load_images(asked: Images) -> Dataset:
    """The data set that is asked for.

    Raises:
        InputError: it is unknown, missing or damaged.
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
    """The run of a network that learns from labels alone.

    Raises:
        InputError: the recipe is unknown, or the batch does not fit the images or the processes.
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
            f"batch {schedule.batch} is larger than the {len(dataset.train)} training images: give --batch"
        )
    processes = execution.devices * execution.nodes
    if processes > 1:
        check_shares(len(dataset.train), schedule.batch, (0, processes), least=1 if training.sync_bn else 2)
    damaged: Literal["refuse", "skip"] = "skip" if dataset.skipped else "refuse"
    which = Data(images.data, dataset.identity, images.limit, images.classes, images.size, dataset.streamed, damaged)
    precision = settle_precision(training.precision, execution.device)
    shares = 1 if training.sync_bn else processes
    return Run(network, which, seed, schedule, precision, on_nan=training.on_nan, norm_shares=shares)


def alignment(pairs: Sequence[str], students: Sequence[str]) -> Alignment | None:
    """`2:1 3:2` is student stage 2 with teacher stage 1, 3 with 2; in a Run stages are counted from 0.

    Raises:
        InputError: it is written differently, or is for several students.
    """
    if not pairs:
        return None
    if len(students) > 1:
        raise InputError("--align is for one student: train the teachers of several one by one")
    found = [re.fullmatch(r"(\d+):(\d+)", pair) for pair in pairs]
    if not all(found):
        raise InputError(f"--align {' '.join(pairs)}: write STUDENT_STAGE:TEACHER_STAGE, as in 2:1 3:2 4:3")
    return tuple((int(match[1]) - 1, int(match[2]) - 1) for match in found if match)
