"""What two processes do together and one does alone: each is `python -m tests.support.process_checks FOLDER`.

Networks are in float64, so that what is left of a difference is rounding of about 1e-16 a step and not a wrong weight.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sftn.data.batch import Batch
from sftn.data.loader import Loader
from sftn.errors import Diverged, InputError, Stopped
from sftn.networks import KEYS, NETWORKS
from sftn.runs.runner import train
from sftn.runtime.collectives import rank, world
from sftn.runtime.device import join, make_fabric
from sftn.spec.execution import Execution
from sftn.spec.objective import Objective, Term
from sftn.spec.run import Run
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from sftn.training.evaluate import evaluate
from sftn.training.loop import LoopOptions, fit
from sftn.training.phase import Phase
from tests.support import tiny

SCHEDULE = Schedule(epochs=2, batch=7, lr=0.02, milestones=(1,))
IMAGES = 19
"""In batches of 7, 7 and 5: no share is like the other."""
OPTIONS: dict[str, dict[str, Any]] = {"crd": {"negatives": 6, "dimensions": 4}, "ft": {"epochs": 120}}
OPTIONS["mlkd"] = {"distort": False}  # what is random in a view is drawn by each process for its own images
METHODS = ("kd", "fitnet", "at", "sp", "vid", "rkd", "pkt", "ab", "ft", "crd", "sskd", "oh")
METHODS += ("dkd", "dist", "reviewkd", "mlkd", "nkd", "simkd", "ctkd", "catkd", "uskd", "wkd-l", "wkd-f")
RUNS = (*METHODS, "supervised", "friendly", "unused", "own norms")


class Doubled:
    """A loader of float64."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.images = loader, loader.images

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for images, labels, index in self.loader.epoch(epoch, start):
            yield Batch(images.double(), labels, index)


class Rows:
    """A callback that keeps rows, and asks for the end after some epoch."""

    def __init__(self, stop_after: int = 0) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.stop_after = stop_after

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        pass

    def step(self, step: int) -> None:
        pass

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)


def phases(name: str) -> tuple[nn.Module, list[Phase], int]:
    """The task of a name, what it is trained by, and the copies of each image that it wants."""
    torch.manual_seed(1)
    teacher, student = tiny.network((6, 8, 12)).double(), tiny.network().double()
    if name == "friendly":
        task: nn.Module = StudentBranches(teacher, lambda: tiny.network(classes=4).double(), tiny.IMAGE).double()
        return task, [Phase("train", task, (task,), SCHEDULE)], 1
    if name in ("supervised", "own norms", "unused"):
        task = Supervised(student)
        if name == "unused":  # a parameter that the loss never meets: SGD leaves it alone, weight decay and all
            task.unused = nn.Linear(2, 2).double()
        return task, [Phase("train", task, (task,), SCHEDULE)], 1
    images = torch.rand(16, *tiny.IMAGE, dtype=torch.float64)
    with torch.no_grad():
        teacher.train()(images)  # running statistics that are not those of a start
    terms = () if name == "kd" else (Term(name, 0.5, OPTIONS.get(name, {})),)
    labels = tiny.dataset(IMAGES).train.labels
    distiller = Distiller(student, teacher, Objective(name, ce=0.5, kd=0.5, terms=terms), tiny.IMAGE, labels=labels)
    return distiller.double(), distiller.phases(SCHEDULE), distiller.copies


def trained(name: str) -> dict[str, Any]:
    """What a task is after its phases: its state, and the mean loss of its last epoch."""
    task, listed, copies = phases(name)
    data, rows = tiny.dataset(IMAGES), Rows()
    for phase in listed:
        loader = Loader(
            data.train,
            batch=SCHEDULE.batch,
            normalisation=data.normalisation,
            padding=1,
            copies=copies,
            share=(rank(), world()),
        )
        fabric = make_fabric("cpu", "float32", devices=world())
        fit(phase, Doubled(loader), fabric, LoopOptions(whole_norms=name != "own norms"), callback=rows)
    return {"state": task.state_dict(), "loss": rows.rows[-1]["loss"]}


def evaluated(images: int) -> dict[str, float]:
    """A network on a split of so many images."""
    torch.manual_seed(2)
    data = tiny.dataset(tests=images)
    network = tiny.network(classes=7)
    return evaluate(network, data.test, data.normalisation, make_fabric("cpu", "float32", devices=world()), batch=8)


class Poison(nn.Module):
    """A network's loss, which is not finite for one image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        loss = self.layer(labels.float().unsqueeze(1)).square().mean()
        return {"loss": loss + torch.where((index == 11).any(), torch.inf, 0.0)}


def poisoned(skip: bool) -> dict[str, Any]:
    """What is said of a loss that only one process finds not to be finite."""
    torch.manual_seed(3)
    task, data, rows = Poison(), tiny.dataset(IMAGES), Rows()
    loader = Loader(data.train, batch=7, normalisation=data.normalisation, share=(rank(), world()))
    schedule = replace(SCHEDULE, epochs=1, lr=0.001)
    fabric = make_fabric("cpu", "float32", devices=world())
    try:
        fit(Phase("train", task, (task,), schedule), loader, fabric, LoopOptions(skip=skip), callback=rows)
    except Diverged as error:
        return {"images": error.record["images"], "step": error.record["step"]}
    return {"skipped": rows.rows[-1]["skipped"], "state": task.state_dict()}


def run(epochs: int = 3) -> Run:
    """A run that begins in one number of processes and ends in another."""
    return tiny.run(tiny.dataset(), epochs=epochs)


def carried_out(out: Path, stop_after: int = 0, epochs: int = 3) -> dict[str, Any] | str:
    """The result of `run`, or that it was stopped."""
    execution = Execution(device="cpu", devices=world())
    try:
        return train(run(epochs), tiny.dataset(), out, execution, callback=Rows(stop_after))
    except Stopped:
        return "stopped"


def named() -> None:
    """Let runs name the tiny network."""
    NETWORKS["tiny"], KEYS["tiny"] = partial(tiny.network, (4, 6, 8)), ()


def everything(folder: Path) -> dict[str, Any]:
    """All that two processes do."""
    jobs: dict[str, Callable[[], Any]] = {name: partial(trained, name) for name in RUNS}
    jobs |= {f"evaluate {images}": partial(evaluated, images) for images in (1, 24, 37)}
    jobs |= {"poisoned": partial(poisoned, False), "skipped": partial(poisoned, True)}
    jobs |= {"begin": partial(carried_out, folder / "two-one", 1), "go on": partial(carried_out, folder / "one-two")}
    return {name: job() for name, job in jobs.items()}


if __name__ == "__main__":
    logging.getLogger("sftn").setLevel(logging.ERROR)
    named()
    join("cpu", 2, 1)
    folder = Path(sys.argv[1])
    torch.save(everything(folder), folder / f"process{rank()}.tmp")
    os.replace(folder / f"process{rank()}.tmp", folder / f"process{rank()}.pt")
    try:
        carried_out(folder / "endless", epochs=100_000)  # until one is killed
    except InputError as error:
        sys.exit(str(error))
