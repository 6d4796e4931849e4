"""Your own network as a student, and a teacher made for it: `python examples/own_network.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sftn.data.load import load
from sftn.data.loader import Loader
from sftn.networks import build
from sftn.networks.foreign.cut import staged
from sftn.networks.staged import StagedNet
from sftn.tasks.student_branches import StudentBranches


class Small(nn.Module):
    """A network as you might have it, which knows nothing about stages."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU())
            for width in (8, 16, 32)
        )
        self.classifier = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        maps = self.entry(images)
        for block in self.blocks:
            maps = block(maps)
        return self.classifier(maps.mean((2, 3)))


def small() -> StagedNet:
    """The same, cut at its blocks."""
    return staged(
        Small(classes=10, channels=1),
        (1, 32, 32),
        stem="entry",
        stages=["blocks.0", "blocks.1", "blocks.2"],
        head=[lambda maps: maps.mean((2, 3)), "classifier"],
    )


def main(epochs: int = 5, limit: int | None = None) -> None:
    """Train a teacher that is friendly to it."""
    data = load("digits", limit=limit)
    batches = Loader(data.train, batch=64, normalisation=data.normalisation, padding=data.padding)
    task = StudentBranches(build("resnet20", classes=10, channels=1), small, data.image)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        for images, labels, _ in batches.epoch(epoch):
            terms = task.train()(images, labels)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {terms['loss']:.3f}, teacher {terms['accuracy']:.0f} % of the last batch")


if __name__ == "__main__":
    main()
