"""Tiny networks and images for tests that care about plumbing, not accuracy."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sftn.data.dataset import Dataset, Split
from sftn.networks.families.layers import Head, Residual, Stage, Stem, conv_norm
from sftn.networks.staged import StagedNet
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule

IMAGE = (3, 16, 16)
CLASSES = 4


def network(
    widths: tuple[int, ...] = (4, 6, 8),
    strides: tuple[int, ...] | None = None,
    classes: int = CLASSES,
    channels: int = 3,
) -> StagedNet:
    """One convolution a stage; the strides are those of the stages."""
    strides = strides or (1,) + (2,) * (len(widths) - 1)
    stages = []
    for before, width, stride in zip((4, *widths), widths, strides):
        stages.append(Stage(Residual(nn.Sequential(*conv_norm(before, width, 3, stride)), None)))
    return StagedNet(Stem(*conv_norm(channels, 4, 3), nn.ReLU()), stages, Head(widths[-1], classes), "tiny")


def dataset(images: int = 48, tests: int = 24, seed: int = 0) -> Dataset:
    """Noise with a bright corner that tells the class."""
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for count in (images, tests):
        labels = torch.arange(count) % CLASSES
        pixels = torch.randint(0, 120, (count, *IMAGE), generator=generator)
        for corner in range(CLASSES):
            y, x = 8 * (corner // 2), 8 * (corner % 2)
            pixels[labels == corner, :, y : y + 8, x : x + 8] += 100
        splits.append(Split(pixels.to(torch.uint8), labels))
    return Dataset("tiny", splits[0], splits[1], tuple("abcd"), flip=False, padding=1)


def run(
    data: Dataset, name: str = "tiny", epochs: int = 2, seed: int = 0, precision: str = "float32", **changes: object
) -> Run:
    """A run of a tiny network."""
    schedule = Schedule(epochs=epochs, batch=16, lr=0.05)
    return Run(name, Data("tiny", data.identity), seed, schedule, precision, **changes)  # type: ignore[arg-type]


def weights(out: Path, run: Run) -> bytes:
    """What a finished run left."""
    return (out / run.folder / "weights.safetensors").read_bytes()
