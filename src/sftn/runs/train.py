"""Trains one network from start to finish: a teacher, standard or student-friendly, or a distilled student."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.networks import check_name
from sftn.networks.staged import StagedNet
from sftn.runs import requests
from sftn.runs.build import check, load_network
from sftn.runs.caveats import Record
from sftn.runs.own_code import signed
from sftn.runs.runner import train
from sftn.runs.trained import Trained
from sftn.runtime.device import join
from sftn.spec.execution import Execution
from sftn.spec.jobs import Distill, TrainTeacher
from sftn.spec.run import FineTune, Friendly, Run, Weights
from sftn.storage.lease import Held
from sftn.tasks import recipes
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)
MOST_GENERATIONS = 10
"""Of born-again students: a record holds those of all its teachers, and is read to a bounded depth."""
LONGEST_PAUSE = 5.0
"""Seconds between two looks at a run that another process is training."""
Watch = Callable[[str], AbstractContextManager[Callback]]
"""Makes the callback of a run, given the run's title."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained, with its run, folder and accuracy."""

    run: Run
    folder: Path
    accuracy: float
    """Test accuracy after the last epoch, in percent."""
    best_accuracy: float
    """Test accuracy of the best epoch, in percent."""
    dataset: Dataset = field(repr=False)
    """The images that it was trained and tested on."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The content of `result.json`."""

    @property
    def warnings(self) -> list[str]:
        """What to know before believing the accuracy, as predicates, such as "never recognises cat"."""
        return list(self.result.get("warnings", self._record.caveats()))

    @property
    def recall(self) -> dict[str, float | None]:
        """Recall by class in percent on the test images; None for a class without any. Empty for older runs."""
        return dict(zip(self._record.names, self._record.recall))

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean recall of the classes in percent; None for older runs."""
        return self._record.balanced

    @cached_property
    def _record(self) -> Record:
        return Record.of(self.result)

    @property
    def scored(self) -> str:
        """Its accuracies in words; with balanced accuracy where the test images' classes are unequal in number."""
        balanced = f", balanced accuracy {self.balanced_accuracy:.2f} %" if self._record.unequal else ""
        return f"{self.accuracy:.2f} % (best epoch {self.best_accuracy:.2f} %){balanced}"

    @cached_property
    def network(self) -> StagedNet:
        """The network in eval mode, read from the run's folder."""
        return load_network(self.run, self.dataset, self.folder.parent).eval()

    def __str__(self) -> str:
        warnings = "".join(f"\nWarning: {self.run.name} {warning}" for warning in self.warnings)
        return f"{self.run.name}: {self.scored}, in {self.folder}{warnings}"


def train_teacher(asked: TrainTeacher, dataset: Dataset | None = None, *, watch: Watch | None = None) -> TrainedNetwork:
    """Train a student-friendly or a standard teacher, or resume its run; a finished run is only read.

    If another process is training the run, its end is waited for.

    Args:
        asked: the teacher, the students that it is trained for, the images and the settings.
        dataset: the images, if they are loaded already.
        watch: makes the callback of the run, given its title.

    Raises:
        InputError: an option is wrong, or the images cannot be loaded.
        FloatingPointError: training diverged.
    """
    run, images = teacher_run(asked, dataset)
    return _carried_out(run, images, asked.out, asked.execution, watch)


def teacher_run(asked: TrainTeacher, dataset: Dataset | None = None) -> tuple[Run, Dataset]:
    """The run that trains a teacher, checked against its images, and the images; nothing is written.

    Raises:
        InputError: an option is wrong.
    """
    if asked.standard == bool(asked.student):
        raise InputError("give --student NAME for a student-friendly teacher, or --standard for a standard one")
    start = requests.start(asked.teacher, asked.teacher_file)
    network = asked.teacher if start is None else start.network
    for name in (network, *asked.student):
        check_name(name)
    dataset = requests.load_images(asked.images) if dataset is None else dataset
    run = requests.plain_run(network, dataset, asked.images, asked.training, asked.execution, asked.seed)
    run = replace(run, fine_tune=None if asked.fine_tune == FineTune() else asked.fine_tune, start=start)
    if asked.student:
        stages = requests.alignment(asked.align, asked.student)
        run = replace(run, friendly=Friendly.to(asked.student, asked.branches), alignment=stages)
    run = signed(run)
    check(run, dataset, asked.out)
    return run, dataset


def distill(asked: Distill, dataset: Dataset | None = None, *, watch: Watch | None = None) -> TrainedNetwork:
    """The student of `generations`, the last one if there are several."""
    return generations(asked, dataset, watch=watch)[-1]


def generations(asked: Distill, dataset: Dataset | None = None, *, watch: Watch | None = None) -> list[TrainedNetwork]:
    """Distil trained teachers into a student, and that into the next one, or resume; a finished run is only read.

    If another process is training a run, its end is waited for.

    Args:
        asked: the teachers, the student, the images and the settings.
        dataset: the images, if they are loaded already.
        watch: makes the callback of a run, given its title.

    Returns:
        What was trained: a teacher, if none was given, and the student of each generation.

    Raises:
        InputError: an option is wrong, or the images cannot be loaded.
        FloatingPointError: training diverged.
    """
    runs, images = student_runs(asked, dataset)
    return [_carried_out(run, images, asked.out, asked.execution, watch) for run in runs]


def student_runs(asked: Distill, dataset: Dataset | None = None) -> tuple[list[Run], Dataset]:
    """The runs of `generations` in their order, checked against the images, and these; nothing is written.

    Raises:
        InputError: an option is wrong.
    """
    if not 1 <= asked.generations <= MOST_GENERATIONS:
        raise InputError(f"generations is {asked.generations}: give a number from 1 to {MOST_GENERATIONS}")
    if not asked.teacher and asked.generations == 1:
        raise InputError("no teacher given: name a run's folder or a weights file with --teacher")
    objective = recipes.objective(asked.method, alone=asked.alone, temperature=asked.temperature)
    check_name(asked.student)
    sources = _teachers(asked)
    dataset = requests.load_images(asked.images) if dataset is None else dataset
    run = requests.plain_run(asked.student, dataset, asked.images, asked.training, asked.execution, asked.seed)
    stages = requests.alignment(asked.align, [asked.student])
    runs = [] if sources else [signed(run)]
    for generation in range(asked.generations):
        teacher, *further = runs[-1:] or sources
        taught = replace(run, teacher=teacher, further=tuple(further), objective=objective)
        # The stages are named for the first teacher; students of the same network match one to one.
        own = generation == 0 and bool(sources)
        taught = replace(taught, alignment=stages if own else None, ensemble=asked.ensemble if own else "mean")
        runs.append(signed(taught))
    for one in runs:
        check(one, dataset, asked.out if one is runs[0] else None)  # the teachers of the others are not there yet
    return runs, dataset


def _teachers(asked: Distill) -> list[Run | Weights]:
    """What the teachers are, each once."""
    found = [Trained.of(what, None, asked.out, asked.teacher_file) for what in asked.teacher]
    for place, (one, what) in enumerate(zip(found, asked.teacher)):
        if one.identity in [other.identity for other in found[:place]]:
            raise InputError(f"teacher {what} is given twice: name each once")
    if asked.ensemble != "mean" and len(found) < 2:
        raise InputError(f"--ensemble {asked.ensemble} weighs several teachers, and {len(found) or 'none'} is given")
    return [one.source for one in found]


def _carried_out(run: Run, dataset: Dataset, out: Path, execution: Execution, watch: Watch | None) -> TrainedNetwork:
    join(execution.device, execution.devices, execution.nodes)
    pause = 0.0
    while True:
        try:
            with nullcontext() if watch is None else watch(run.name) as callback:
                record = train(run, dataset, out, execution, callback=callback)
            break
        except Held as held:
            if not pause:
                logger.info("%s: waiting for it", str(held).partition(": ")[0])
            pause = min(2 * pause or 0.25, LONGEST_PAUSE)
            time.sleep(pause)
    return TrainedNetwork(run, out / run.folder, record["accuracy"], record["best_accuracy"], dataset, record)
