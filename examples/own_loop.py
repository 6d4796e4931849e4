"""Both stages in a training loop of one's own, without Fabric, commands or runs: `python examples/own_loop.py`."""

from __future__ import annotations

import torch
from torch import nn

from sftn.data import Loader, load
from sftn.distill import Distiller
from sftn.networks import build
from sftn.recipes import objective
from sftn.teacher import StudentBranches


def train(task: nn.Module, batches: Loader, epochs: int) -> float:
    """Minimise a task's loss; returns the last one."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        for images, labels, index in batches.epoch(epoch):
            loss = task.train()(images, labels, index)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.item()


def main(epochs: int = 10, limit: int | None = None) -> None:
    """A student-friendly teacher, then its student."""
    data = load("digits", limit=limit)
    batches = Loader(data.train, batch=64, normalisation=data.normalisation, padding=data.padding)

    teacher = build("resnet20", classes=10, channels=1)
    branches = StudentBranches(teacher, lambda: build("resnet8", classes=10, channels=1), data.image)
    print(f"teacher with branches: loss {train(branches, batches, epochs):.3f}")

    student = build("resnet8", classes=10, channels=1)
    distiller = Distiller(student, teacher, objective("kd"), data.image)
    print(f"student by KD: loss {train(distiller, batches, epochs):.3f}")


if __name__ == "__main__":
    main()
