"""Builds what a `Run` records: its networks, data set and training phases, and loads what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.networks import PRETRAINED, build
from sftn.networks.ensemble import Ensemble
from sftn.networks.fast.product_choices import Choices
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights
from sftn.runs.fit_check import Fit, Known
from sftn.runs.folder import RunFolder
from sftn.runtime.processes import led
from sftn.spec.run import Data, Run, Weights
from sftn.tasks.distillation import Distiller, rebuild, rebuilds
from sftn.tasks.speedups import speed_up
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from sftn.training.phase import Phase
from sftn.training.teacher_outputs import TeacherOutputs


@dataclass(frozen=True)
class Plan:
    """The training phases of a run, and what they need."""

    phases: list[Phase]
    state: nn.Module
    """All modules whose state the phases change, so what a checkpoint holds."""
    copies: int = 1
    """Copies of each image that the loader puts in a batch, each augmented independently."""
    flip: bool = True
    """Whether the loader may mirror images."""
    choices: Choices = field(default_factory=Choices)
    """Which convolutions are computed as matrix products."""


def check(run: Run, dataset: Dataset, out: Path | None = None) -> None:
    """Build what a run would train and discard it, so that errors are reported before anything is trained.

    Args:
        run: the run.
        dataset: its images.
        out: the folder of all runs, if the teacher is there already: it is loaded, too.

    Raises:
        InputError: the networks cannot be aligned or lack something that a method needs, an option is out of range, or
            the teacher does not fit its weights or the images.
    """

    def teacher(source: Run | Weights) -> StagedNet:
        if out is None and isinstance(source, Run):
            return new_network(source.network, dataset)
        return load_network(source, dataset, out or Path(), tell=False)

    taught_by = teacher_of(run, teacher)
    plan(run, begun_network(run, dataset, tell=False), dataset, taught_by)


def plan(
    run: Run,
    network: StagedNet,
    dataset: Dataset,
    teacher: StagedNet | None,
    teacher_outputs: TeacherOutputs | None = None,
    *,
    fast_float32: bool = False,
    choices: Choices | None = None,
) -> Plan:
    """Turn a run into the phases that train it.

    Args:
        run: the run.
        network: the network to train.
        dataset: its images.
        teacher: the trained teacher, if the run distils one, or the ensemble of several (`teacher_of`).
        teacher_outputs: where the teacher's outputs come from; None runs it on every batch.
        fast_float32: compute float32 faster, with different rounding (`sftn.tasks.speedups`).
        choices: which convolutions are computed as matrix products; None chooses what is faster on this machine.
    """
    task: nn.Module
    choices = Choices() if choices is None else choices
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
            teacher_outputs=teacher_outputs,
            ensemble=run.ensemble,
        )
        speed_up(task, run.precision, choices, fast_float32=fast_float32)
        task.teacher = task.teacher_outputs.adopt(task.teacher)
        task.to(next(task.teacher.parameters()).device)  # a cohort's teacher may be on its device already
        state = nn.ModuleDict({"student": network, "methods": task.methods})
        return Plan(task.phases(run.schedule), state, task.copies, task.flip, choices)
    if run.friendly is None:
        task = Supervised(network)
    else:
        how: Mapping[str, Any] = {name: value for name, value in vars(run.friendly).items() if name != "student"}
        students = [partial(new_network, name, dataset) for name in run.friendly.student.split("+")]
        task = StudentBranches(network, students, dataset.image, alignment=run.alignment, **how)
    speed_up(task, run.precision, choices, fast_float32=fast_float32)
    return Plan([_first_training(run, task, network)], task, choices=choices)


def _first_training(run: Run, task: nn.Module, network: StagedNet) -> Phase:
    """The phase of a network without a teacher; it trains everything, or the part that fine-tuning does not freeze."""
    if run.fine_tune is None:
        return Phase("train", task, (task,), run.schedule)
    frozen, rate = run.fine_tune.frozen_stages, run.fine_tune.backbone_rate
    if not rate >= 0:
        raise InputError(f"backbone_rate is {rate}: it must not be negative")
    if not 0 <= frozen <= len(network.stages):
        raise InputError(f"frozen stages {frozen}: {network.name} has {len(network.stages)} stages")
    backbone = (*([] if frozen else [network.stem]), *network.stages[frozen:])
    others = [module for name, module in task.named_children() if module is not network]
    return Phase("train", task, (*backbone, network.head, *others), run.schedule, backbone, rate)


def evaluation_interval(dataset: Dataset) -> int:
    """Epochs between two evaluations, so that evaluation costs at most about a tenth of training.

    A forward pass costs about a third of a training step, so this is 1 unless the test split is the larger one.
    """
    return max(1, 3 * len(dataset.test) // len(dataset.train))


def load_data(data: Data, data_dir: Path | None, **more: Any) -> Dataset:
    """The images that a record names, as they are now; `more` is passed to `sftn.data.load`.

    Raises:
        InputError: the images are missing or damaged.
    """
    name = data.name
    if data.path is not None and Path(data.path).is_dir():  # otherwise it was moved, and may be found by its name
        name = f"{name.partition(':')[0]}:{data.path}"
    return load(
        name,
        data_dir=data_dir,
        limit=data.limit,
        classes=data.classes,
        size=data.size,
        stream=data.stream,
        damaged=data.damaged,
        **more,
    )


def teacher_of(run: Run, make: Callable[[Run | Weights], StagedNet]) -> StagedNet | None:
    """What a run learns from: its teacher, the ensemble of its teachers, or None if it has none.

    Args:
        run: the run.
        make: builds or loads one of the teachers.
    """
    members = [make(source) for source in run.teachers]
    return Ensemble(members) if len(members) > 1 else members[0] if members else None


def load_network(source: Run | Weights, dataset: Dataset, out: Path, *, tell: bool = True) -> StagedNet:
    """The trained network of a finished run or a weights file, as it fits the images (`sftn.runs.fit_check`).

    In distributed training every process calls this; only the leader needs access to the files.

    Args:
        source: the run, or the file.
        dataset: the images that the network is built for.
        out: the folder of all runs.
        tell: log what was chosen in the file, and what was mended to fit the images.

    Raises:
        InputError: the run is not done, or the file does not fit the network and the data.
    """
    network = _unloaded(source, dataset)  # once: it draws random numbers

    def read() -> tuple[dict[str, Any], Fit]:
        path, part = _weights(source, out)
        fit = Fit.of(Known.of(source, out), dataset, source.name)
        chosen = load_weights(network, path, part=part, columns=fit.columns)
        return network.state_dict(), replace(fit, notes=(chosen, *fit.notes) if chosen else fit.notes)

    state, fit = led(read)
    network.load_state_dict(state)
    fit.apply(network, dataset)
    if tell:
        fit.tell()
    return network


def begun_network(run: Run, dataset: Dataset, *, tell: bool = True) -> StagedNet:
    """The network that a run trains, before training: freshly initialised, or with the weights that it starts from.

    Raises:
        InputError: these weights do not fit the network.
    """
    network = new_network(run.network, dataset)
    if run.start is not None:
        load_start(network, run.start, dataset, tell=tell)
    return network


def load_start(network: StagedNet, start: Weights, dataset: Dataset, *, tell: bool = True) -> None:
    """Load the weights that a network's training starts from, in place; its classifier stays new for other classes.

    Raises:
        InputError: the file does not fit the network.
    """

    def read() -> tuple[dict[str, Any], Fit]:
        fit, new_head = Fit.of_start(Known.of(start, Path()), dataset, start.name)
        load = partial(load_weights, network, start.path, part=start.part)
        try:
            chosen = load(columns=fit.columns, new_head=new_head)
        except InputError:
            if new_head:
                raise
            chosen = load(new_head=True)
            fit = replace(fit, notes=(f"{start.name} has other classes: its classifier is new",))
        return network.state_dict(), replace(fit, notes=(*filter(None, [chosen]), *fit.notes))

    state, fit = led(read)
    network.load_state_dict(state)
    if tell:
        fit.tell()


def _weights(source: Run | Weights, out: Path) -> tuple[Path, str | None]:
    """The file of a trained network, and which of its sets of weights."""
    if isinstance(source, Weights):
        return Path(source.path), source.part
    folder = RunFolder(out / source.folder)
    if folder.result(source) is None:
        raise InputError(f"{source.name} is not trained yet: {folder} has no result")
    return folder.weights, None


def _unloaded(source: Run | Weights, dataset: Dataset) -> StagedNet:
    """A trained network before its weights are loaded; that of a run is rebuilt as its objective requires."""
    # The trained weights replace the pretrained ones, which therefore need not be downloaded again.
    network = new_network(source.network.removesuffix(PRETRAINED), dataset)
    if isinstance(source, Run) and source.teacher and source.objective and rebuilds(source.objective, METHODS):
        rebuild(network, _unloaded(source.teacher, dataset), source.objective, dataset.image, METHODS)
    return network


def new_network(name: str, dataset: Dataset) -> StagedNet:
    """A freshly initialised (or pretrained) network for the classes and image shape of a data set."""
    channels, height, width = dataset.image
    return build(name, len(dataset.classes), channels=channels, image=(height, width))
