"""Images that do not fit into memory: worker processes read, decode and cut them, a batch at a time.

Everything random of an image follows from (seed, epoch, position in the epoch, copy) alone, so an epoch can be taken up
at any step and gives the same batches with any number of workers. A worker makes whole batches of uint8, two of which
wait for each worker at most; they are normalised on the device.
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
    """What a worker is asked for."""

    rows: NDArray[np.int64]
    """(B,) which images of the reader."""
    begin: int = 0
    """The position of the first one in the epoch."""
    key: int | None = None
    """Of the epoch's random numbers; None for images as they are in evaluation."""


class Maker:
    """Makes a batch of pixels from an order, in any process."""

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
        # A counter instead of a state: any image's numbers can be had without those of the others.
        uniform = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, copy, position])).random
        mirrored = uniform() < 0.5
        pixels = crop(path, self.size, uniform, content)
        return pixels[:, ::-1] if self.flip and mirrored else pixels


class Checker:
    """Reads and decodes the images of an order and says which cannot be."""

    def __init__(self, reader: Reader, size: int) -> None:
        self.reader, self.size = reader, size

    def __getitem__(self, order: Order) -> list[tuple[int, str]] | Failed:
        """(row, message) of each bad one."""
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
    """Augmented, shuffled training batches of images that are read when they are wanted.

    An image is a random part of its file (`sftn.data.decoding.crop`), mirrored with probability 1/2. The last, smaller
    batch is kept unless it is a single image, as by `sftn.data.loader.Loader`.

    Args:
        split: the training images.
        batch: images a step; the last may have fewer.
        normalisation: mean and standard deviation of each channel, (C,), of pixels in 0..255.
        flip: whether images are mirrored.
        copies: independently augmented copies of each image, side by side.
        seed: of everything random.
        device: where the batches go.
        channels_last: the memory format of the batches; False for contiguous ones.
        share: which process this is, of how many. All draw the same epoch, and each makes its part of every batch.
        context: how workers start (fork, spawn, forkserver); None for the system's way.

    Raises:
        InputError: fewer than one image a batch, no copy, a negative number of workers, or no batch at all.
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
    """A random part of an image is none of a number of views."""

    def outcomes(self, epoch: int) -> None:
        """None: views are not numbered."""

    def __len__(self) -> int:
        """Steps an epoch."""
        steps, rest = divmod(len(self.labels), self.batch)
        return steps + (rest > 1)

    def images(self, step: int) -> int:
        """Images of a step, counted from 1, of all processes together."""
        return min(self.batch, len(self.labels) - (step - 1) * self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from step `start` on.

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
    """Every image in order, for evaluation: its shorter side resized and its centre cut out."""
    scale = by_row(normalisation, split.size, device)
    at = [part(begin, min(begin + batch, len(split)), *share) for begin in range(0, len(split), batch)]
    orders = (Order(split.rows[own].numpy()) for own in at)
    index = torch.arange(len(split))
    for own, pixels in zip(at, Pool(Maker(split), split.workers).made(orders), strict=True):
        yield _batch(pixels, split.labels[own], index[own], scale, torch.device(device), channels_last)


def unreadable(files: Files, batch: int = 64) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Read and decode every image once: how many are done, and (index, message) of the bad ones among the last."""
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
