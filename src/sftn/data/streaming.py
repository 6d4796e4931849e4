"""Streaming of images that do not fit into memory: worker processes read, decode and crop them, a batch at a time.

An image's random numbers depend on (seed, epoch, position in the epoch, copy) alone, so an epoch can resume at any
step and gives the same batches with any number of workers. A worker makes whole batches of uint8, at most two of which
are queued per worker; they are normalised on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftn.data.batch import Batch, by_row, mixed, normalise
from sftn.data.decoding import Damaged, centre, crop, decode
from sftn.data.file_split import Files, Reader
from sftn.data.workers import Failed, Pool
from sftn.errors import InputError
from sftn.runtime.collectives import part


class Order(NamedTuple):
    """The images that a worker is to read, as one batch."""

    rows: NDArray[np.int64]
    """(B,) rows of the reader."""
    begin: int = 0
    """Position of the first image in the epoch."""
    key: int | None = None
    """Key of the epoch's random numbers; None to preprocess as in evaluation."""


class Maker:
    """Turns an order into a batch of pixels, in any process."""

    def __init__(self, files: Files, copies: int = 1, flip: bool = False) -> None:
        self.reader, self.size, self.resize = files.reader, files.size, files.resize
        self.copies, self.flip = copies, flip

    def __getitem__(self, order: Order) -> Tensor | Failed:
        """(B·copies, size, size, 3) uint8."""
        pixels = np.empty((len(order.rows), self.copies, self.size, self.size, 3), np.uint8)
        try:
            for i, row in enumerate(order.rows.tolist()):
                for copy in range(self.copies):
                    pixels[i, copy] = self._one(row, order.key, order.begin + i, copy)
        except InputError as error:
            return Failed(str(error))
        return torch.from_numpy(pixels.reshape(-1, *pixels.shape[2:]))

    def _one(self, row: int, key: int | None, position: int, copy: int) -> NDArray[np.uint8]:
        path, content = self.reader.open(row)
        if key is None:
            return centre(path, self.size, content, resize=self.resize)
        # A counter-based generator gives any image's numbers without drawing those of the others.
        uniform = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, copy, position])).random
        mirrored = uniform() < 0.5
        pixels = crop(path, self.size, uniform, content)
        return pixels[:, ::-1] if self.flip and mirrored else pixels


class Checker:
    """Reads and decodes the images of an order and reports which of them are damaged."""

    def __init__(self, reader: Reader, size: int) -> None:
        self.reader, self.size = reader, size

    def __getitem__(self, order: Order) -> list[tuple[int, str]] | Failed:
        """(row, message) of each damaged image."""
        bad = []
        try:
            for row in order.rows.tolist():
                path, content = self.reader.open(row)
                try:
                    decode(path, self.size, content)
                except Damaged as error:
                    bad.append((row, str(error)))
        except InputError as error:
            return Failed(str(error))
        return bad


class StreamLoader:
    """Augmented, shuffled training batches of images that are read on demand.

    An image is a random crop of its file (`sftn.data.decoding.crop`), mirrored with probability 1/2. As in
    `sftn.data.loader.Loader`, the last, smaller batch is kept unless it is a single image.

    Args:
        split: the training images.
        batch: images per step; the last may have fewer.
        normalisation: mean and standard deviation of each channel, (C,), of pixels in 0..255.
        flip: whether images are mirrored.
        copies: independently augmented copies of each image, side by side.
        seed: seed of all random numbers.
        device: device of the batches.
        channels_last: whether batches are channels-last; False for contiguous ones.
        share: (rank, number of processes). All draw the same epoch, and each makes its part of every batch.
        context: start method of the workers (fork, spawn, forkserver); None for the system's default.

    Raises:
        InputError: the batch or the number of copies is below 1, that of workers is negative, or there is no batch.
    """

    def __init__(
        self,
        split: Files,
        *,
        batch: int,
        normalisation: tuple[Tensor, Tensor],
        flip: bool = False,
        copies: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        share: tuple[int, int] = (0, 1),
        context: str | None = None,
    ) -> None:
        for name, value in (("batch", batch), ("copies", copies)):
            if value < 1:
                raise InputError(f"{name} {value}: give at least 1")
        self.batch, self.flip, self.copies, self.seed = batch, flip, copies, seed
        self.device, self.channels_last, self.share = torch.device(device), channels_last, share
        self.labels, self._rows = split.labels, split.rows
        self._scale = by_row(normalisation, split.size, self.device)
        self._pool = Pool(Maker(split, copies, flip), split.workers, context)
        if not len(self):
            raise InputError(f"{len(split)} training images make no batch of {batch}: give at least 2 images")

    views: None = None
    """Random crops of files are not numbered."""

    def outcomes(self, epoch: int) -> None:
        """Return None, because views are not numbered."""

    def __len__(self) -> int:
        """Steps per epoch."""
        steps, rest = divmod(len(self.labels), self.batch)
        return steps + (rest > 1)

    def images(self, step: int) -> int:
        """Number of images in a step (counted from 1), over all processes."""
        return min(self.batch, len(self.labels) - (step - 1) * self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (counted from 0) from step `start` on.

        Raises:
            InputError: an image cannot be read, or a worker died.
        """
        key = mixed(self.seed, epoch)
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(key))
        steps = range(start, len(self))
        at = [part(s * self.batch, s * self.batch + self.images(s + 1), *self.share) for s in steps]
        indices = [order[own] for own in at]
        orders = (Order(self._rows[index].numpy(), own.start, key) for own, index in zip(at, indices))
        for index, pixels in zip(indices, self._pool.made(orders), strict=True):
            yield _batch(pixels, self.labels[index], index, self._scale, self.device, self.channels_last)


def streamed(
    split: Files,
    *,
    batch: int,
    normalisation: tuple[Tensor, Tensor],
    device: torch.device | str,
    channels_last: bool,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of every image in order, resized by the shorter side and centre-cropped, for evaluation."""
    scale = by_row(normalisation, split.size, device)
    at = [part(begin, min(begin + batch, len(split)), *share) for begin in range(0, len(split), batch)]
    orders = (Order(split.rows[own].numpy()) for own in at)
    index = torch.arange(len(split))
    for own, pixels in zip(at, Pool(Maker(split), split.workers).made(orders), strict=True):
        yield _batch(pixels, split.labels[own], index[own], scale, torch.device(device), channels_last)


def unreadable(files: Files, batch: int = 64) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Read and decode every image once; yield how many are done, and (index, message) of newly found damaged ones."""
    parts: Sequence[Tensor] = torch.arange(len(files)).split(batch)
    orders = (Order(files.rows[some].numpy()) for some in parts)
    for some, bad in zip(parts, Pool(Checker(files.reader, files.size), files.workers).made(orders), strict=True):
        place = dict(zip(files.rows[some].tolist(), some.tolist()))
        yield int(some[-1]) + 1, [(place[row], message) for row, message in bad]


def _batch(
    pixels: Tensor,
    labels: Tensor,
    index: Tensor,
    scale: tuple[Tensor, Tensor],
    device: torch.device,
    channels_last: bool,
) -> Batch:
    images = normalise(pixels.to(device, non_blocking=True), scale, channels_last)
    return Batch(images, labels.to(device), index.to(device))
