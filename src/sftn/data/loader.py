"""The device-resident loader: uint8 images stay on the device, whole batches are augmented there.

On a CPU a batch of 64 images of 3×32×32 takes one thread well under half a millisecond: the pre-padded images are seen
through a view of every crop, so that one indexing gathers a batch of crops, row by row (see `Loader`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sftn.data.dataset import Split
from sftn.errors import InputError


class Batch(NamedTuple):
    """What every step is given."""

    images: Tensor
    """(B·copies, C, H, W) float32, normalised; the copies of an image stand side by side."""
    labels: Tensor
    """(B,) int64"""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    """(B,) int64: which training images these are."""


class Loader:
    """Augmented, shuffled training batches, made on the device out of uint8 images that never leave it.

    Everything random of an epoch (the order, the crops, the flips) is drawn when the epoch starts, on the device, from
    (seed, epoch) alone: an epoch can be taken up at any step and gives the same batches. Another kind of device draws
    other numbers. A step only indexes and never waits for the device. The last, smaller batch is kept unless it is a
    single image, which is dropped: batch norm cannot train on one 1×1 map.

    The images are held once, padded and with their channels last: (1 + 2·padding/H)·(1 + 2·padding/W) times the bytes
    of the split, 1.56 times for 32×32 and padding 4.

    Args:
        split: the training images, (N, C, H, W) uint8.
        batch: images a step; the last may have fewer.
        normalisation: mean and standard deviation of each channel, (C,), of pixels in 0..255.
        padding: black pixels around an image before a random crop of its own size (as torchvision's `RandomCrop`);
            0 leaves the images in place.
        flip: whether an image is mirrored with probability 1/2.
        copies: independently augmented copies of each image, side by side.
        seed: of everything random.
        device: where the images stay.
        channels_last: the memory format of the batches; False for contiguous ones.

    Raises:
        InputError: fewer than one image a batch, negative padding, no copy, or no batch at all.
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
    ) -> None:
        for name, value, least in (("batch", batch, 1), ("padding", padding, 0), ("copies", copies, 1)):
            if value < least:
                raise InputError(f"{name} {value}: give at least {least}")
        self.batch, self.padding, self.flip, self.copies, self.seed = batch, padding, flip, copies, seed
        self.device = torch.device(device)
        self.channels_last = channels_last
        self.labels = split.labels.to(self.device)
        self._crops = _crops(split.images.to(self.device), padding)
        self._scale = _by_row(normalisation, split.images.shape[3], self.device)
        if not len(self):
            raise InputError(f"{len(split)} training images make no batch of {batch}: give at least 2 images")

    def __len__(self) -> int:
        """Steps an epoch."""
        steps, rest = divmod(len(self.labels), self.batch)
        return steps + (rest > 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from step `start` on."""
        images, sides = len(self.labels), 2 * self.padding + 1
        generator = torch.Generator(self.device).manual_seed(_seed(self.seed, epoch))
        order = torch.randperm(images, generator=generator, device=self.device)
        rows, columns = torch.randint(sides, (2, images, self.copies), generator=generator, device=self.device)
        mirrored = torch.rand(images, self.copies, generator=generator, device=self.device) < 0.5
        for step in range(start, len(self)):
            at = slice(step * self.batch, (step + 1) * self.batch)
            index = order[at]
            which = index[:, None].expand(-1, self.copies).reshape(-1)
            pixels = self._crops[which, rows[at].reshape(-1), columns[at].reshape(-1)]
            if self.flip:
                pixels = torch.where(mirrored[at].reshape(-1, 1, 1, 1), pixels.flip(2), pixels)
            yield Batch(_normalise(pixels, self._scale, self.channels_last), self.labels[index], index)


def plain(
    split: Split,
    *,
    batch: int,
    normalisation: tuple[Tensor, Tensor],
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Iterator[Batch]:
    """Every image as it is, in order, for evaluation; the last batch may be smaller.

    Images that are elsewhere are brought to the device a batch at a time; `split.to(device)` first spares that.

    Raises:
        InputError: fewer than one image a batch.
    """
    if batch < 1:
        raise InputError(f"batch {batch}: give at least 1")
    scale = _by_row(normalisation, split.images.shape[3], device)
    for begin in range(0, len(split), batch):
        at = slice(begin, min(begin + batch, len(split)))
        pixels = split.images[at].to(device).permute(0, 2, 3, 1).contiguous()
        index = torch.arange(at.start, at.stop, device=device)
        yield Batch(_normalise(pixels, scale, channels_last), split.labels[at].to(device), index)


def _crops(images: Tensor, padding: int) -> Tensor:
    """A view of all crops of the padded images: (N, 2·padding + 1, 2·padding + 1, H, W, C).

    Indexing its first three dimensions gathers a batch of crops in runs of whole pixels. One thread of a CPU does so
    in 0.14 ms for 64 images of 3×32×32; gathering first and padding only the batch takes 0.23 ms, indexing each pixel
    0.67 ms.
    """
    count, channels, height, width = images.shape
    padded = images.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    padded[:, padding : padding + height, padding : padding + width] = images.permute(0, 2, 3, 1)
    return padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)


def _by_row(normalisation: tuple[Tensor, Tensor], width: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Mean and deviation for a row of pixels, (W·C,): five times as fast on a CPU as broadcasting (C,)."""
    mean, std = normalisation
    return mean.float().to(device).repeat(width), std.float().to(device).repeat(width)


def _normalise(pixels: Tensor, scale: tuple[Tensor, Tensor], channels_last: bool) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32."""
    mean, std = scale
    images = pixels.flatten(2).float().sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)
    return images if channels_last else images.contiguous()


def _seed(seed: int, epoch: int) -> int:
    """Unrelated streams for any two pairs of numbers, where seed + epoch would repeat them."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1
