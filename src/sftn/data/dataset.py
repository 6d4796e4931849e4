"""What a source of images gives: two splits of uint8 images, in memory or in files, and what may be done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

SAMPLE = 1000
"""Training images that the normalisation of a streamed data set is taken from."""
MEMORY = 4 * 2**30
"""Bytes of decoded pixels that are kept in memory, unless asked otherwise; more are streamed."""


@dataclass(frozen=True)
class Split:
    """Images with their labels, in memory; `sftn.data.file_split.Files` keeps them elsewhere."""

    images: Tensor
    """(N, C, H, W) uint8"""
    labels: Tensor
    """(N,) int64"""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same images on another device."""
        return Split(self.images.to(device), self.labels.to(device))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def pick(self, which: Tensor) -> Split:
        """Some of the images, by mask or index."""
        return Split(self.images[which], self.labels[which])

    def sample(self, count: int) -> Split:
        """All images: those in memory are cheap to look at, whatever `count` is."""
        return self

    def hashed(self) -> Iterator[bytes | memoryview]:
        """What a fingerprint is made of: shapes, pixels, labels."""
        for tensor in (self.images, self.labels):
            yield f"{tuple(tensor.shape)}".encode()
            yield tensor.cpu().contiguous().numpy().data


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
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of each channel, pixels in 0..255, where they are known; None to take them."""
    skipped: int = 0
    """Damaged images that were left out."""

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.shape

    @property
    def streamed(self) -> bool:
        """Whether images are read when they are wanted, instead of kept in memory."""
        return type(self.train) is not Split

    @cached_property
    def identity(self) -> str:
        """What a run records of its images: the first sixteen hexadecimal digits of their `fingerprint`."""
        return fingerprint(self)[:16]

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over the training images, (C,) float32, pixels in 0..255.

        Of streamed images `SAMPLE` are looked at, evenly from all, as they are in evaluation.
        """
        if self.statistics is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32) for values in self.statistics)
            return mean, std
        levels = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        for channel in self.train.sample(SAMPLE).images.unbind(1):
            # A part at a time: to be counted, pixels are copied.
            count = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(SAMPLE))
            share = torch.as_tensor(count).double() / channel.numel()
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
    stream: bool | None = None
    """Whether images are read when they are wanted; None: if their pixels exceed `memory`."""
    memory: float = MEMORY
    """Bytes of decoded pixels that may be kept."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """What is done about images that cannot be decoded."""
    workers: int = 2
    """Processes that read streamed images; 0 for none but this one."""


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) of both splits: equal for the same data, whatever its name.

    Of images in memory it covers shapes, pixels and labels; of streamed ones, which would all have to be read, names
    within their source, bytes of each file and labels.
    """
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        for part in split.hashed():
            digest.update(part)
    return digest.hexdigest()


def held_out(names: list[str], count: int) -> set[int]:
    """Which `count` of the `names` are put aside for testing: those whose SHA-256 is smallest.

    A hash needs no random generator, so that the choice depends neither on a library's version nor on the order.
    """
    return set(sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())[:count])
