"""What a Run says, as modules: its networks, its phases, and its teacher's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.networks import PRETRAINED, build
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights
from sftn.runs.folder import result
from sftn.runtime.collectives import world
from sftn.runtime.processes import led
from sftn.spec.run import Data, Run, Weights
from sftn.tasks.distillation import Distiller
from sftn.tasks.speedups import prepare_step
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from sftn.training.phase import Phase


def check(run: Run, dataset: Dataset) -> None:
    """Build what a run would train and drop it, so that what cannot work is said before anything is trained.

    Raises:
        InputError: the networks cannot be aligned, or lack what a method needs, or an option is out of range.
    """
    teacher = None if run.teacher is None else blank(run.teacher.network, dataset)
    plan(run, blank(run.network, dataset), dataset, teacher)


def plan(
    run: Run,
    network: StagedNet,
    dataset: Dataset,
    teacher: StagedNet | None,
    share: Callable[[Distiller], None] = lambda task: None,
) -> tuple[list[Phase], nn.Module, int, bool]:
    """The phases of a run, the modules whose state they change, and what they ask of the loader: copies and flips.

    Args:
        run: which.
        network: that it trains.
        dataset: the images.
        teacher: of a student.
        share: may give a distillation another teacher that answers the same.
    """
    task: nn.Module
    if teacher is not None:
        if run.objective is None:
            raise InputError("a run with a teacher needs an objective")
        task = Distiller(
            network,
            teacher,
            run.objective,
            dataset.image,
            labels=dataset.train.labels,
            alignment=run.alignment,
        )
        prepare_step(task, run.precision)
        share(task)
        state = nn.ModuleDict({"student": network, "methods": task.methods})
        return task.phases(run.schedule), state, task.copies, task.flip
    if run.friendly is None:
        task = Supervised(network)
    else:
        how: Mapping[str, Any] = {name: value for name, value in vars(run.friendly).items() if name != "student"}
        students = [partial(blank, name, dataset) for name in run.friendly.student.split("+")]
        task = StudentBranches(network, students, dataset.image, alignment=run.alignment, **how)
    prepare_step(task, run.precision)
    return [_first_training(run, task, network)], task, 1, True


def _first_training(run: Run, task: nn.Module, network: StagedNet) -> Phase:
    """The phase of a network that has no teacher: all of it, or what fine-tuning leaves of it."""
    if run.fine_tune is None:
        return Phase("train", task, (task,), run.schedule)
    frozen, rate = run.fine_tune.frozen_stages, run.fine_tune.backbone_rate
    if not rate >= 0:
        raise InputError(f"backbone_rate is {rate}: it must not be negative")
    if not 0 <= frozen <= len(network.stages):
        raise InputError(f"frozen stages {frozen}: {network.name} has {len(network.stages)}")
    backbone = (*([] if frozen else [network.stem]), *network.stages[frozen:])
    others = [module for name, module in task.named_children() if module is not network]
    return Phase("train", task, (*backbone, network.head, *others), run.schedule, backbone, rate)


def evaluation_interval(dataset: Dataset) -> int:
    """Epochs between two evaluations: as many as keep them near a tenth of the cost of training.

    A forward costs about a third of a training step, so this is 1 unless the test split is the larger one.
    """
    return max(1, 3 * len(dataset.test) // len(dataset.train))


def reloaded(data: Data, data_dir: Path | None, **more: Any) -> Dataset:
    """The images that a record names, as they are now; `more` goes to `sftn.data.load`.

    Raises:
        InputError: they are not there any more, or wrong.
    """
    return load(
        data.name,
        data_dir=data_dir,
        limit=data.limit,
        classes=data.classes,
        size=data.size,
        stream=data.stream,
        damaged=data.damaged,
        **more,
    )


def load_teacher(teacher: Run | Weights, dataset: Dataset, out: Path) -> StagedNet:
    """The network that a run or a file left.

    Raises:
        InputError: the run is not done, or the file does not fit the network and the data.
    """
    # Its own weights are read: those that it started from need not be fetched again.
    network = blank(teacher.network.removesuffix(PRETRAINED), dataset)
    if isinstance(teacher, Weights):
        load_weights(network, Path(teacher.path))
        return network
    folder = out / teacher.folder
    if result(folder, teacher) is None:
        raise InputError(f"the teacher {teacher.name} is not trained yet: {folder} has no result")
    load_weights(network, folder / "weights.safetensors")
    return network


def taught(teacher: Run | Weights, dataset: Dataset, out: Path) -> StagedNet:
    """`load_teacher` for all processes, of which only the leader must see the files."""
    if world() == 1:
        return load_teacher(teacher, dataset, out)
    network = blank(teacher.network.removesuffix(PRETRAINED), dataset)
    with torch.random.fork_rng(devices=[]):
        state = led(lambda: load_teacher(teacher, dataset, out).state_dict())
    network.load_state_dict(state)
    return network


def blank(name: str, dataset: Dataset) -> StagedNet:
    """A network as it is before training on some images."""
    channels, height, width = dataset.image
    return build(name, len(dataset.classes), channels=channels, image=(height, width))
