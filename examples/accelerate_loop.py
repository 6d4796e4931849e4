"""Both stages under Hugging Face Accelerate (`pip install accelerate`): `python examples/accelerate_loop.py`."""

from __future__ import annotations

from functools import partial

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from sftn.data.load import load
from sftn.networks import build
from sftn.networks.staged import StagedNet
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.training.phase import Phase


def train(phase: Phase, images: TensorDataset, accelerator: Accelerator) -> float:
    """Minimise the loss of a phase's task, and return its last value."""
    phase.prepare()  # freezes what the phase does not train, and puts it in eval mode
    learned = [parameter for parameter in phase.task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=phase.schedule.lr, momentum=0.9)
    batches = DataLoader(images, batch_size=64, shuffle=True)
    task, optimizer, batches = accelerator.prepare(phase.task, optimizer, batches)
    for _ in range(phase.schedule.epochs):
        for batch in batches:
            loss = task(*batch)["loss"]
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    return loss.item()


def main(epochs: int = 10, limit: int | None = None, method: str = "kd") -> tuple[StagedNet, StagedNet]:
    """Train a student-friendly teacher, then its student."""
    data, schedule, accelerator = load("digits", limit=limit), Schedule(epochs=epochs), Accelerator()
    mean, std = (values[:, None, None] for values in data.normalisation)
    pixels, labels = data.train.images.float(), data.train.labels
    images = TensorDataset((pixels - mean) / std, labels, torch.arange(len(labels)))

    teacher, student = (build(name, classes=10, channels=1) for name in ("resnet20", "resnet8"))
    branches = StudentBranches(teacher, partial(build, "resnet8", classes=10, channels=1), data.image)
    distiller = Distiller(student, teacher, objective(method), data.image, labels=labels)
    for phase in (Phase("teacher", branches, (branches,), schedule), *distiller.phases(schedule)):
        loss = train(phase, images, accelerator)
        accelerator.print(f"{phase.name}: loss {loss:.3f}")
    return teacher, student


if __name__ == "__main__":
    main()
