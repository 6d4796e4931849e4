"""What a source of images gives: two splits of uint8 images in memory, and what may be done to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images with their labels."""

    images: Tensor
    """(N, C, H, W) uint8"""
    labels: Tensor
    """(N,) int64"""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same images on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and the augmentation that suits their images."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    flip: bool = True
    """Whether a mirrored image is still an image of its class."""
    padding: int = 4
    """Zero pixels around a training image before a random crop of its own size."""
    resize: int | None = None
    """What the shorter side of a file's image becomes before its centre is cut out; None for the cut's own size."""

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over the training images, (C,) float32, pixels in 0..255."""
        levels = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        for channel in self.train.images.unbind(1):
            share = torch.bincount(channel.flatten().int(), minlength=256).double() / channel.numel()
            mean = (share * levels).sum()
            means.append(mean)
            deviations.append((share * (levels - mean) ** 2).sum().sqrt())
        # A constant channel carries nothing: leave its scale alone instead of dividing by zero.
        std = torch.stack(deviations)
        return torch.stack(means).float(), torch.where(std > 0, std, torch.ones_like(std)).float()


@dataclass(frozen=True)
class Request:
    """What a source is asked for."""

    path: str = ""
    """What follows the colon of the data set's name."""
    data_dir: Path | None = None
    """Where the person says that the files are."""
    size: int | None = None
    """Height and width of the images; None for the source's own."""
    download: bool = False
    """Whether missing files may be fetched."""


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) over the shapes, pixels and labels of both splits: equal for the same data, whatever its name."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        for tensor in (split.images, split.labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def held_out(names: list[str], count: int) -> set[int]:
    """Which `count` of the `names` are put aside for testing: those whose SHA-256 is smallest.

    A hash needs no random generator, so that the choice depends neither on a library's version nor on the order.
    """
    return set(sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())[:count])
