"""What every step is given, and how pixels of any loader become it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from sftn.errors import InputError


class Batch(NamedTuple):
    """What every step is given."""

    images: Tensor
    """(B·copies, C, H, W) float32, normalised; the copies of an image stand side by side."""
    labels: Tensor
    """(B,) int64"""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    """(B,) int64: which training images these are."""


def check_shares(images: int, batch: int, share: tuple[int, int], least: int = 1) -> None:
    """See that every process has images in every batch of an epoch.

    Args:
        images: of the split.
        batch: images a step, of all processes together.
        share: which process, of how many.
        least: images that a process needs.

    Raises:
        InputError: in the last batch, or in all, there are too few.
    """
    rest = images % batch
    smallest = min(batch, images) if rest < 2 else rest
    if smallest // share[1] < least:
        where = "the last batch of an epoch" if smallest == rest else "a batch"
        raise InputError(
            f"{where} has {smallest} images for {share[1]} processes, and each needs {least}: give another --batch, "
            "--limit or --devices"
        )


def by_row(normalisation: tuple[Tensor, Tensor], width: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Mean and deviation for a row of pixels, (W·C,): five times as fast on a CPU as broadcasting (C,)."""
    mean, std = normalisation
    return mean.float().to(device).repeat(width), std.float().to(device).repeat(width)


def normalise(pixels: Tensor, scale: tuple[Tensor, Tensor], channels_last: bool) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32; `scale` is what `by_row` gives."""
    mean, std = scale
    images = pixels.flatten(2).float().sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)
    return images if channels_last else images.contiguous()


def mixed(seed: int, epoch: int) -> int:
    """Unrelated streams for any two pairs of numbers, where seed + epoch would repeat them."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1
