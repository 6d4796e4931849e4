"""Data sets: a training and a test split of uint8 images, in memory or in files, and their augmentation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

SAMPLE = 1000
"""Number of training images from which a streamed data set's normalisation is computed."""
MEMORY = 4 * 2**30
"""Default limit on decoded pixels in memory, in bytes; larger data sets are streamed."""


@dataclass(frozen=True)
class Split:
    """Images and labels in memory; `sftn.data.file_split.Files` reads them from files instead."""

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
        """Select images by mask or index."""
        return Split(self.images[which], self.labels[which])

    def sample(self, count: int) -> Split:
        """Return all images, whatever `count` is: images in memory are cheap to read."""
        return self

    def hashed(self) -> Iterator[bytes | memoryview]:
        """Yield what the fingerprint covers: shapes, pixels, labels."""
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
    """Whether a mirrored image still belongs to its class."""
    padding: int = 4
    """Zero pixels around a training image before a random crop of its own size."""
    resize: int | None = None
    """Length of an image file's shorter side before the centre crop; None for the size of the crop."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Known mean and standard deviation of each channel, pixels in 0..255; None to compute them."""
    skipped: int = 0
    """Number of damaged images that were left out."""
    named: bool = False
    """Whether the names of the classes are the user's, and so part of what the data are; names of the package's own
    data sets never change."""

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.shape

    @property
    def streamed(self) -> bool:
        """Whether images are read on demand instead of kept in memory."""
        return type(self.train) is not Split

    @cached_property
    def identity(self) -> str:
        """The first sixteen hexadecimal digits of the `fingerprint`, which a run records."""
        return fingerprint(self)[:16]

    def matches(self, recorded: str) -> bool:
        """Whether these are the images of a recorded identity; earlier versions recorded no names of classes."""
        return recorded == self.identity or (self.named and recorded == replace(self, named=False).identity)

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over the training images, (C,) float32, pixels in 0..255.

        For streamed images, `SAMPLE` evenly spaced ones are used, preprocessed as in evaluation.
        """
        if self.statistics is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32) for values in self.statistics)
            return mean, std
        levels = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        for channel in self.train.sample(SAMPLE).images.unbind(1):
            # In parts, because counting copies the pixels.
            count = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(SAMPLE))
            share = torch.as_tensor(count).double() / channel.numel()
            mean = (share * levels).sum()
            means.append(mean)
            deviations.append((share * (levels - mean) ** 2).sum().sqrt())
        # A constant channel carries no information: keep its scale instead of dividing by zero.
        std = torch.stack(deviations)
        return torch.stack(means).float(), torch.where(std > 0, std, torch.ones_like(std)).float()


@dataclass(frozen=True)
class Request:
    """What a source is to load, and how."""

    path: str = ""
    """The part of the data set's name after the colon."""
    data_dir: Path | None = None
    """Folder in which the user keeps the files."""
    size: int | None = None
    """Height and width of the images; None for the source's own."""
    download: bool = False
    """Whether missing files may be fetched."""
    stream: bool | None = None
    """Whether images are read on demand; None to do so if their pixels exceed `memory`."""
    memory: float = MEMORY
    """Limit on decoded pixels in memory, in bytes."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Whether an image that cannot be decoded is an error or is left out."""
    workers: int = 2
    """Processes that read streamed images; 0 to read in this process."""


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) of both splits: equal for the same data, whatever its name.

    For images in memory it covers shapes, pixels and labels; for streamed ones, all of which would have to be read,
    names within their source, the byte count of each file and labels. Names of classes count if they are the user's.
    """
    digest = hashlib.sha256()
    if dataset.named:
        digest.update(json.dumps(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        for part in split.hashed():
            digest.update(part)
    return digest.hexdigest()


def held_out(names: list[str], count: int) -> set[int]:
    """Indices of the `count` names that are held out for testing: those with the smallest SHA-256.

    Without a random generator, the choice depends neither on a library's version nor on the order of the names.
    """
    return set(sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())[:count])
