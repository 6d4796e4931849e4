"""Carry out a Run: build its networks, train its phases, leave its weights and result in its folder."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sftn
from sftn.checkpoint import Checkpoints, tidy
from sftn.data.dataset import Dataset
from sftn.data.loader import Loader
from sftn.device import HALVES, make_fabric
from sftn.distill import Distiller
from sftn.errors import InputError
from sftn.evaluate import evaluate
from sftn.fit import Phase, Watcher, fit
from sftn.journal import Journal
from sftn.leases import Lease
from sftn.networks import PRETRAINED, build
from sftn.networks.checkpoints import load_weights, save_weights
from sftn.networks.staged import StagedNet
from sftn.run import FORMAT, Run, Weights, result, sha256, write_json
from sftn.teacher import StudentBranches, Supervised


def train(
    run: Run,
    dataset: Dataset,
    out: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    tensorboard: bool = False,
    checkpoint_seconds: float = 60.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Carry out a run, or what is left of it; a run that is done is only read.

    Args:
        run: what to train. If it has a teacher that is a Run, that one must have been carried out in `out`.
        dataset: the images that `run.data` names.
        out: the folder of all runs.
        device: auto, cpu, cuda or mps.
        watcher: is told of steps and epochs.
        tensorboard: also write TensorBoard's event files into the run's folder.
        checkpoint_seconds: the time between two checkpoints.
        say: is told, in a line each, what a person should know.

    Returns:
        The content of `result.json`.

    Raises:
        InputError: something given from outside is wrong.
        Held: another process carries this run out (an `InputError`).
        Stopped: a signal asked for the end; the state is saved and the same call goes on from there.
    """
    folder = out / run.folder
    run.write(folder)
    done = result(folder, run)
    if done is not None:
        tidy(folder)  # whoever made it may have been killed before it could
        return done
    with Lease(folder) as lease:
        done = result(folder, run)  # whoever had the lease before may have finished
        if done is not None:
            return done
        return _carry_out(run, dataset, out, lease, device, watcher, tensorboard, checkpoint_seconds, say)


def _carry_out(
    run: Run,
    dataset: Dataset,
    out: Path,
    lease: Lease,
    device: str,
    watcher: Watcher | None,
    tensorboard: bool,
    checkpoint_seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    folder = out / run.folder
    fabric = make_fabric(device, run.precision)
    torch.manual_seed(run.seed)
    network = blank(run.network, dataset)
    teacher = None if run.teacher is None else load_teacher(run.teacher, dataset, out)
    phases, state, copies, flip = plan(run, network, dataset, teacher)
    checkpoints = Checkpoints(folder, state, seconds=checkpoint_seconds, say=say, guard=lease.check)
    loader = Loader(
        dataset.train,
        batch=run.schedule.batch,
        normalisation=dataset.normalisation,
        padding=dataset.padding,
        flip=dataset.flip and flip,
        copies=copies,
        seed=run.seed,
        device=fabric.device,
    )
    test = dataset.test.to(fabric.device)

    def test_now() -> dict[str, float]:
        found = evaluate(network, test, dataset.normalisation, fabric)
        return {f"test_{name}": value for name, value in found.items()}

    with Journal(folder, checkpoints.history, watcher, tensorboard=tensorboard) as journal, checkpoints.signals():
        for phase in phases:
            if phase.name in checkpoints.finished:
                continue
            main = phase is phases[-1]
            fit(
                phase,
                loader,
                fabric,
                seed=run.seed,
                evaluate=test_now if main else None,
                evaluate_every=evaluation_interval(dataset),
                watcher=journal,
                checkpoints=checkpoints,
            )
            if not main:
                checkpoints.finish_phase(phase.name)
    history = checkpoints.history
    record = {
        "format": FORMAT,
        "id": run.id,
        "name": run.name,
        "accuracy": history[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in history if "test_accuracy" in row),
        "test": {name.removeprefix("test_"): v for name, v in history[-1].items() if name.startswith("test_")},
        "train": evaluate(network, dataset.train.to(fabric.device), dataset.normalisation, fabric),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": sum(row["seconds"] for row in history),
        "images": images_as_given(dataset),
        "environment": environment(str(fabric.device)),
    }
    lease.check()
    mean, std = (json.dumps(values.tolist()) for values in dataset.normalisation)
    metadata = {"network": run.network, "classes": str(len(dataset.classes)), "run": run.id, "mean": mean, "std": std}
    save_weights(network, folder / "weights.safetensors", metadata)
    record["weights_sha256"] = sha256(folder / "weights.safetensors")
    lease.check()
    write_json(folder / "result.json", record)
    checkpoints.remove()
    return record


def check(run: Run, dataset: Dataset) -> None:
    """Build what a run would train and drop it, so that what cannot work is said before anything is trained.

    Raises:
        InputError: the networks cannot be aligned, or lack what a method needs, or an option is out of range.
    """
    teacher = None if run.teacher is None else blank(run.teacher.network, dataset)
    plan(run, blank(run.network, dataset), dataset, teacher)


def plan(
    run: Run, network: StagedNet, dataset: Dataset, teacher: StagedNet | None
) -> tuple[list[Phase], nn.Module, int, bool]:
    """The phases of a run, the modules whose state they change, and what they ask of the loader: copies and flips."""
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
        if run.precision in HALVES:
            task.keep_teacher_in(HALVES[run.precision])
        state = nn.ModuleDict({"student": network, "methods": task.methods})
        return task.phases(run.schedule), state, task.copies, task.flip
    if run.friendly is None:
        task = Supervised(network)
    else:
        how: Mapping[str, Any] = {name: value for name, value in vars(run.friendly).items() if name != "student"}
        students = [partial(blank, name, dataset) for name in run.friendly.student.split("+")]
        task = StudentBranches(network, students, dataset.image, alignment=run.alignment, **how)
    return [_first_training(run, task, network)], task, 1, True


def _first_training(run: Run, task: nn.Module, network: StagedNet) -> Phase:
    """The phase of a network that has no teacher: all of it, or what fine-tuning leaves of it."""
    if run.fine_tune is None:
        return Phase("train", task, (task,), run.schedule)
    frozen = run.fine_tune.frozen_stages
    if not 0 <= frozen <= len(network.stages):
        raise InputError(f"frozen stages {frozen}: {network.name} has {len(network.stages)}")
    backbone = (*([] if frozen else [network.stem]), *network.stages[frozen:])
    others = [module for name, module in task.named_children() if module is not network]
    return Phase("train", task, (*backbone, network.head, *others), run.schedule, backbone, run.fine_tune.backbone_rate)


def evaluation_interval(dataset: Dataset) -> int:
    """Epochs between two evaluations: as many as keep them near a tenth of the cost of training.

    A forward costs about a third of a training step, so this is 1 unless the test split is the larger one.
    """
    return max(1, 3 * len(dataset.test) // len(dataset.train))


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


def blank(name: str, dataset: Dataset) -> StagedNet:
    """A network as it is before training on some images."""
    channels, height, width = dataset.image
    return build(name, len(dataset.classes), channels=channels, image=(height, width))


def images_as_given(dataset: Dataset) -> dict[str, Any]:
    """What somebody must know who gives a trained network an image of his own, and understands its answer.

    `mean` and `std` are of pixels in 0..255; `resize` is what the shorter side becomes before the centre of `shape`
    (C, H, W) is cut out.
    """
    mean, std = (values.tolist() for values in dataset.normalisation)
    resize = dataset.resize or min(dataset.image[1:])
    return {"classes": list(dataset.classes), "shape": list(dataset.image), "resize": resize, "mean": mean, "std": std}


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and commit, for a result that somebody may want to repeat."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return {
        "sftn": sftn.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    asked = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
