"""Device-resident loading: uint8 images stay on the device, where whole batches are augmented.

On a CPU, one thread makes a batch of 64 images of 3×32×32 in about half a millisecond: a view of the padded images
exposes every crop, so that a single indexing operation gathers a batch of crops, row by row (see `Loader`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from sftn.data.batch import Batch, by_row, check_shares, mixed, normalise
from sftn.data.dataset import Dataset, Split
from sftn.data.file_split import Files
from sftn.data.streaming import StreamLoader, streamed
from sftn.errors import InputError
from sftn.runtime.collectives import part

__all__ = ["Batch", "Batches", "Loader", "SharedBatches", "evaluation_batches", "training_batches"]


class Batches(Protocol):
    """The interface of loaders of training batches."""

    @property
    def views(self) -> int | None:
        """Number of augmented views of an image; None if views are not numbered."""

    def outcomes(self, epoch: int) -> Tensor | None:
        """(N,) int64, 0 to `views` - 1: the view of each image in an epoch, of its first copy."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def images(self, step: int) -> int:
        """Number of images in a step (counted from 1), over all processes."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (counted from 0) from step `start` on; they depend on seed and epoch alone."""


def training_batches(
    dataset: Dataset,
    *,
    batch: int,
    flip: bool = True,
    copies: int = 1,
    seed: int = 0,
    device: torch.device | str,
    share: tuple[int, int] = (0, 1),
    least: int = 1,
) -> Batches:
    """Make the loader of a data set's training images: `Loader` in memory, `StreamLoader` if streamed.

    Args:
        dataset: provides the images, padding, flips and normalisation.
        batch: images per step.
        flip: False disables flips that the data set allows.
        copies: augmented copies of each image.
        seed: seed of all random numbers.
        device: device of the batches.
        share: (rank, number of processes); each process gets its part of every batch.
        least: images that each process needs.

    Raises:
        InputError: as the loaders, or there are too few images for all processes.
    """
    if share[1] > 1:
        check_shares(len(dataset.train), batch, share, least)
    train, normalisation, flip = dataset.train, dataset.normalisation, dataset.flip and flip
    if isinstance(train, Files):
        return StreamLoader(
            train,
            batch=batch,
            normalisation=normalisation,
            flip=flip,
            copies=copies,
            seed=seed,
            device=device,
            share=share,
        )
    return Loader(
        train,
        batch=batch,
        normalisation=normalisation,
        padding=dataset.padding,
        flip=flip,
        copies=copies,
        seed=seed,
        device=device,
        share=share,
    )


def view_count(padding: int, flip: bool) -> int:
    """Number of views that `Loader` makes of an image: 162 with the usual 4 pixels of padding and flips."""
    return (2 * padding + 1) ** 2 * (1 + flip)


class Loader:
    """Augmented, shuffled training batches, made on the device from uint8 images that never leave it.

    All random choices of an epoch (order, crops, flips) are drawn on the device when the epoch starts, from
    (seed, epoch) alone, so that an epoch can resume at any step with the same batches. Other kinds of devices draw
    other numbers. A step only indexes and never waits for the device. The last, smaller batch is kept unless it is a
    single image, which is dropped because batch norm cannot train on one 1×1 map.

    On a CPU no copy of the images is kept: those of a batch are padded when it is made, which takes a tenth of a
    millisecond. Other devices hold them padded and channels-last, because each operation sent to them has a cost:
    (1 + 2·padding/H)·(1 + 2·padding/W) times the bytes of the split, 1.56 times for 32×32 and padding 4.

    Args:
        split: the training images, (N, C, H, W) uint8.
        batch: images per step; the last may have fewer.
        normalisation: mean and standard deviation of each channel, (C,), of pixels in 0..255.
        padding: black pixels around an image before a random crop of its own size (as torchvision's `RandomCrop`);
            0 leaves the images in place.
        flip: whether an image is mirrored with probability 1/2.
        copies: independently augmented copies of each image, side by side.
        seed: seed of all random numbers.
        device: where the images stay.
        channels_last: whether batches are channels-last; False for contiguous ones.
        share: (rank, number of processes). All draw the same epoch, and each makes its part of every batch.

    Raises:
        InputError: the batch or the number of copies is below 1, the padding is negative, or there is no batch.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        normalisation: tuple[Tensor, Tensor],
        padding: int = 0,
        flip: bool = False,
        copies: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        for name, value, least in (("batch", batch, 1), ("padding", padding, 0), ("copies", copies, 1)):
            if value < least:
                raise InputError(f"{name} {value}: give at least {least}")
        self.batch, self.padding, self.flip, self.copies, self.seed = batch, padding, flip, copies, seed
        self.device = torch.device(device)
        self.channels_last, self.share = channels_last, share
        self.labels = split.labels.to(self.device)
        self._images = split.images.to(self.device)
        if self.device.type != "cpu":
            self._images = _padded(self._images, padding)
        self._scale = by_row(normalisation, split.images.shape[3], self.device)
        if not len(self):
            raise InputError(f"{len(split)} training images make no batch of {batch}: give at least 2 images")

    def __len__(self) -> int:
        """Steps per epoch."""
        steps, rest = divmod(len(self.labels), self.batch)
        return steps + (rest > 1)

    def images(self, step: int) -> int:
        """Number of images in a step (counted from 1), over all processes."""
        return min(self.batch, len(self.labels) - (step - 1) * self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (counted from 0) from step `start` on."""
        order, rows, columns, mirrored = self._draw(epoch)
        for step in range(start, len(self)):
            at = part(step * self.batch, step * self.batch + self.images(step + 1), *self.share)
            index = order[at]
            which = index[:, None].expand(-1, self.copies).reshape(-1)
            images = self._images
            if self.device.type == "cpu":
                images, which = _padded(images[which], self.padding), torch.arange(len(which))
            pixels = _crops(images, self.padding)[which, rows[at].reshape(-1), columns[at].reshape(-1)]
            if self.flip:
                pixels = torch.where(mirrored[at].reshape(-1, 1, 1, 1), pixels.flip(2), pixels)
            yield Batch(normalise(pixels, self._scale, self.channels_last), self.labels[index], index)

    @property
    def views(self) -> int:
        """Number of views of an image: crops times flips."""
        return view_count(self.padding, self.flip)

    def outcomes(self, epoch: int) -> Tensor:
        """(N,) int64, 0 to `views` - 1: the view of each image in an epoch, of its first copy."""
        order, rows, columns, mirrored = (drawn if drawn.dim() == 1 else drawn[:, 0] for drawn in self._draw(epoch))
        crops = rows * (2 * self.padding + 1) + columns
        found = torch.empty_like(order)
        found[order] = 2 * crops + mirrored if self.flip else crops
        return found

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random choices of an epoch: (N,) order of the images; (N, copies) crop rows, crop columns, flips."""
        images, sides = len(self.labels), 2 * self.padding + 1
        generator = torch.Generator(self.device).manual_seed(mixed(self.seed, epoch))
        order = torch.randperm(images, generator=generator, device=self.device)
        rows, columns = torch.randint(sides, (2, images, self.copies), generator=generator, device=self.device)
        mirrored = torch.rand(images, self.copies, generator=generator, device=self.device) < 0.5
        return order, rows, columns, mirrored


class SharedBatches:
    """A loader shared by several consumers, which get the same batch at the same step.

    The most recent batch is kept; a consumer at another step makes the loader start there.
    """

    def __init__(self, loader: Batches) -> None:
        self.loader = loader
        self._at = (-1, 0)
        self._rest: Iterator[Batch] = iter(())

    @property
    def views(self) -> int | None:
        """As in the shared loader."""
        return self.loader.views

    def outcomes(self, epoch: int) -> Tensor | None:
        """As in the shared loader."""
        return self.loader.outcomes(epoch)

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.loader)

    def images(self, step: int) -> int:
        """Number of images in a step, counted from 1."""
        return self.loader.images(step)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from a step on, both counted from 0."""
        for step in range(start, len(self.loader)):
            yield self._take(epoch, step)

    def _take(self, epoch: int, step: int) -> Batch:
        if self._at != (epoch, step):
            if self._at != (epoch, step - 1):
                with suppress(AttributeError):  # an iterator need not have workers to end
                    self._rest.close()  # type: ignore[attr-defined]
                self._rest = self.loader.epoch(epoch, start=step)
            self._batch, self._at = next(self._rest), (epoch, step)
        return self._batch


def evaluation_batches(
    split: Split,
    *,
    batch: int,
    normalisation: tuple[Tensor, Tensor],
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of every image in order, without augmentation, for evaluation; the last batch may be smaller.

    Images on another device are moved a batch at a time; calling `split.to(device)` first avoids that. Streamed images
    are resized by their shorter side and centre-cropped. With a `share`, (rank, number of processes), each batch is
    this process's part, which may be empty.

    Raises:
        InputError: the batch is below 1, or a streamed image cannot be read.
    """
    if batch < 1:
        raise InputError(f"batch {batch}: give at least 1")
    if isinstance(split, Files):
        yield from streamed(
            split,
            batch=batch,
            normalisation=normalisation,
            device=device,
            channels_last=channels_last,
            share=share,
        )
        return
    scale = by_row(normalisation, split.images.shape[3], device)
    for begin in range(0, len(split), batch):
        at = part(begin, min(begin + batch, len(split)), *share)
        pixels = split.images[at].to(device).permute(0, 2, 3, 1).contiguous()
        index = torch.arange(at.start, at.stop, device=device)
        yield Batch(normalise(pixels, scale, channels_last), split.labels[at].to(device), index)


def _padded(images: Tensor, padding: int) -> Tensor:
    """Pad images: (N, C, H, W) -> (N, H + 2·padding, W + 2·padding, C)."""
    count, channels, height, width = images.shape
    padded = images.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    padded[:, padding : padding + height, padding : padding + width] = images.permute(0, 2, 3, 1)
    return padded


def _crops(padded: Tensor, padding: int) -> Tensor:
    """View of all crops of padded images: (N, 2·padding + 1, 2·padding + 1, H, W, C).

    Indexing its first three dimensions gathers a batch of crops in runs of whole pixels. One CPU thread takes 0.14 ms
    for 64 images of 3×32×32, or 0.23 ms including the padding; indexing each pixel takes 0.67 ms.
    """
    height, width = (side - 2 * padding for side in padded.shape[1:3])
    return padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
