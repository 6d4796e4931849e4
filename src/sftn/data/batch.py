"""The batch that every training step takes, and how loaders turn pixels into one."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.runtime.collectives import world


class Batch(NamedTuple):
    """One training batch, as every step takes it."""

    images: Tensor
    """(B·copies, C, H, W) float32, normalised; the copies of an image stand side by side."""
    labels: Tensor
    """(B,) int64"""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch does not need
    """(B,) int64: positions of these images in the training split."""


def check_batch(
    images: Tensor,
    labels: Tensor,
    network: nn.Module,
    *,
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
    copies: int = 1,
    training: bool = True,
    first: bool = True,
    watched: bool = False,
) -> None:
    """Check a batch at the door of a task, because any training loop may call one.

    Shapes and types are checked at every call, and so are labels on a CPU; together they take some ten microseconds.
    What waits for a device or reads all pixels is checked at the first call only, and nothing of it while
    `torch.compile` traces a step.

    Args:
        images: what the loop gave as (B·copies, C, H, W) normalised images.
        labels: what it gave as (B,) int64 labels.
        network: the network that sees the images first.
        image: (C, H, W) that the task was made for; None for any.
        classes: number of classes; None leaves the labels' values unchecked.
        copies: crops of each image, side by side.
        training: whether batch norms normalise by the batch, which takes two images.
        first: whether this is the task's first call.
        watched: whether the loop finds numbers that are not finite itself, as `sftn.training.loop.fit` does.

    Raises:
        InputError: it is not such a batch; the message says what is expected.
    """
    check_images(images, network, image)
    check_labels(labels, classes, first)
    count = len(labels)
    if len(images) != copies * count:
        each = f"{copies} crops of each image, side by side" if copies > 1 else "one image a label"
        raise InputError(f"{len(images)} images for {count} labels: give {each}")
    if count < 1 + (training and world() == 1):
        raise InputError(
            f"a batch of {count} image{'s' * (count != 1)}: batch norms and losses that compare images need two or "
            "more, so drop such a last batch (drop_last=True)"
        )
    if first and not watched and not torch.compiler.is_compiling() and not bool(images.isfinite().all()):
        raise InputError("images: some are NaN or infinite; give finite ones (is a deviation of 0 divided by?)")


def check_images(images: Tensor, network: nn.Module, image: tuple[int, int, int] | None = None) -> None:
    """Check that a tensor holds images of the size (C, H, W) that a task was made for; None for any.

    Raises:
        InputError: it does not, or its pixels are not normalised floats that the network can take.
    """
    shape = tuple(images.shape)
    if images.dim() != 4 or (image is not None and shape[1:] != image):
        expected = "C, H, W" if image is None else ", ".join(map(str, image))
        raise InputError(
            f"images: {shape} were given; give (B, {expected})"
            + ", the size that the task was made for" * (image is not None)
        )
    if not images.is_floating_point():
        raise InputError(f"images: {_kind(images)} were given; give float32, normalised as the teacher's were")
    if images.dtype == torch.float64 and next(network.parameters()).dtype != torch.float64:
        raise InputError("images: float64 were given, but the network's weights are not: give images.float()")


def check_labels(labels: Tensor, classes: int | None, first: bool) -> None:
    """Check that labels are (B,) int64 classes: their values on a CPU or at a first call, if classes are known.

    Raises:
        InputError: they are not.
    """
    _check_numbers(labels, "labels", "classes", classes, first)


def check_index(index: Tensor, of: int, first: bool) -> None:
    """Check that an index is (B,) int64 positions of images among `of` training images: values as for labels.

    Raises:
        InputError: it is not.
    """
    _check_numbers(index, "index", "positions in the training labels", of, first)


def _check_numbers(given: Tensor, name: str, what: str, below: int | None, first: bool) -> None:
    if given.dim() != 1 or given.dtype != torch.int64:
        remedy = f"give {what}, (B,) int64"
        if given.dim() == 2 and given.shape[1] == 1:
            remedy += f": {name}.squeeze(1)" + ".long()" * (given.dtype != torch.int64)
        elif given.dim() == 2:
            remedy += f"; soft {name} are not supported, {name}.argmax(1) has the likeliest classes"
        elif given.dim() == 1:
            remedy += f": {name}.long()"
        raise InputError(f"{name}: {tuple(given.shape)} {_kind(given)} were given; {remedy}")
    if below is None or torch.compiler.is_compiling() or not (first or given.device.type == "cpu"):
        return
    least, most = torch.stack(given.aminmax()).tolist() if len(given) else (0, 0)
    if least < 0 or most >= below:
        raise InputError(f"{name}: {least} to {most} were given; give {what} from 0 to {below - 1}")


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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
