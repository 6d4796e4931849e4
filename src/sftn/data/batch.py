"""The batch that every training step takes, and how loaders turn pixels into one."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from sftn.errors import InputError


class Batch(NamedTuple):
    """One training batch, as every step takes it."""

    images: Tensor
    """(B·copies, C, H, W) float32, normalised; the copies of an image stand side by side."""
    labels: Tensor
    """(B,) int64"""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch does not need
    """(B,) int64: positions of these images in the training split."""


def check_shares(images: int, batch: int, share: tuple[int, int], least: int = 1) -> None:
    """Check that every process gets images in every batch of an epoch.

    Args:
        images: number of images in the split.
        batch: images per step, over all processes.
        share: (rank, number of processes).
        least: images that each process needs.

    Raises:
        InputError: the last batch, or every batch, has too few images.
    """
    rest = images % batch
    smallest = min(batch, images) if rest < 2 else rest
    if smallest // share[1] < least:
        where = "the last batch of an epoch" if smallest == rest else "a batch"
        raise InputError(
            f"{where} has {smallest} images for {share[1]} processes, and each needs {least}: change --batch, "
            "--limit or --devices"
        )


def by_row(normalisation: tuple[Tensor, Tensor], width: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation repeated over a row of pixels, (W·C,): five times as fast on a CPU as (C,)."""
    mean, std = normalisation
    return mean.float().to(device).repeat(width), std.float().to(device).repeat(width)


def normalise(pixels: Tensor, scale: tuple[Tensor, Tensor], channels_last: bool) -> Tensor:
    """Normalise (B, H, W, C) uint8 pixels to (B, C, H, W) float32; `scale` comes from `by_row`."""
    mean, std = scale
    images = pixels.flatten(2).float().sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)
    return images if channels_last else images.contiguous()


def mixed(seed: int, epoch: int) -> int:
    """Hash seed and epoch into one seed, so that no two pairs share a stream (seed + epoch would collide)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1
