"""Both stages in your own training loop, without Fabric, commands or runs: `python examples/own_loop.py`."""

from __future__ import annotations

from functools import partial

import torch

from sftn.data.load import load
from sftn.data.loader import Loader
from sftn.networks import build
from sftn.networks.staged import StagedNet
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.training.phase import Phase


def train(phase: Phase, batches: Loader) -> float:
    """Minimise the loss of a phase's task, and return its last value."""
    phase.prepare()  # freezes what the phase does not train, and puts it in eval mode
    learned = [parameter for parameter in phase.task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=phase.schedule.lr, momentum=0.9)
    for epoch in range(phase.schedule.epochs):
        for images, labels, index in batches.epoch(epoch):
            loss = phase.task(images, labels, index)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.item()


def main(epochs: int = 10, limit: int | None = None, method: str = "kd") -> tuple[StagedNet, StagedNet]:
    """Train a student-friendly teacher, then its student."""
    data = load("digits", limit=limit)
    batches = Loader(data.train, batch=64, normalisation=data.normalisation, padding=data.padding)
    schedule = Schedule(epochs=epochs)

    teacher, student = (build(name, classes=10, channels=1) for name in ("resnet20", "resnet8"))
    branches = StudentBranches(teacher, partial(build, "resnet8", classes=10, channels=1), data.image)
    print(f"teacher with branches: loss {train(Phase('teacher', branches, (branches,), schedule), batches):.3f}")

    distiller = Distiller(student, teacher, objective(method), data.image, labels=data.train.labels)
    for phase in distiller.phases(schedule):  # the method's first stage, if it has one, then distillation
        print(f"student with {method.upper()}, {phase.name}: loss {train(phase, batches):.3f}")
    return teacher, student


if __name__ == "__main__":
    main()
