"""Output cache: stores a frozen teacher's outputs, so that it is run only once on each view of an image."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sftn.errors import InputError

FLOOR = 16
"""Smallest batch that the teacher is run on: with fewer images, matrix products are rounded in another order."""
STEP = 4
"""Larger batches are multiples of this: for every new size oneDNN prepares all convolutions again."""


def hit_rate(epochs: int, outcomes: int) -> float:
    """The expected share of lookups that hit, over `epochs` epochs of uniformly drawn augmentation outcomes."""
    return 1 - outcomes * (1 - (1 - 1 / outcomes) ** epochs) / epochs


class OutputCache:
    """A frozen teacher's outputs, stored by image and augmentation outcome as they were first computed.

    The teacher is run on the views that are missing, together with enough other images of the batch to make at least
    `FLOOR` and a multiple of `STEP`, or the whole batch. On a CPU an image's output is then usually the same, bit for
    bit, whichever images share its batch, so training proceeds as if the teacher had been run every time, provided that
    all batches have one size; `same_in_parts` checks this for a teacher on a device. Where it does not hold, an output
    is the one first computed, which differs from a new one by rounding only.

    Finding the missing views waits for the device, which costs nothing on a CPU.

    Args:
        answer: (B, C, H, W) images -> (B, D); logits, embedding, or both side by side. Its dtype is kept.
        images: N, the number of images.
        outcomes: number of augmentation outcomes of an image: `Loader.views`.
        room: memory for outputs, in bytes; if N·outcomes·D numbers do not fit, only the first images are stored.
        folder: store the outputs in files there, for other processes with the same teacher, precision, device and
            images: use a separate folder for each combination. Several processes may write at once. Nothing is synced:
            after a power cut, remove the files.
        device: where outputs are stored; a folder needs the CPU.

    Raises:
        InputError: a folder is combined with a device other than the CPU; or, at the first call, the memory cannot be
            allocated.
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        images: int,
        outcomes: int,
        *,
        room: int = 2**31,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.answer, self.images, self.outcomes, self.room = answer, images, outcomes, room
        self.device, self.folder = torch.device(device), folder
        if folder is not None and self.device.type != "cpu":
            raise InputError(f"teacher outputs in files need a CPU, not {self.device.type}: leave the folder out")
        self.kept = 0
        """Number of images whose outputs are stored; known after the first call."""
        self.asked = self.hits = 0

    @torch.no_grad()
    def __call__(self, views: Tensor, index: Tensor, outcome: Tensor) -> Tensor:
        """The teacher's outputs, looked up where they are stored.

        Args:
            views: (B, C, H, W) augmented images.
            index: (B,) indices of the images.
            outcome: (B,) int64 augmentation outcome of each image, from 0, as `Loader.outcomes` gives it.

        Returns:
            (B, D) outputs.
        """
        self.asked += len(views)
        if not self.kept:
            first = self.answer(views)
            self._open(first)
            if not self._known.any():  # otherwise another process has stored some already
                self._keep(index, outcome, first)
                return first
        at = index.clamp(max=self.kept - 1) * self.outcomes + outcome
        known = self._known[at] & (index < self.kept)
        missing = (~known).nonzero()[:, 0]
        self.hits += len(views) - len(missing)
        answers = self._answers[at]
        if len(missing):
            beside = known.nonzero()[: size(len(missing)) - len(missing), 0]
            questions = _like(views, views[torch.cat([missing, beside])])
            answers[missing] = self.answer(questions)[: len(missing)]
            self._keep(index[missing], outcome[missing], answers[missing])
        return answers

    @property
    def rate(self) -> float:
        """The share of outputs so far that were looked up."""
        return self.hits / max(1, self.asked)

    def _open(self, like: Tensor) -> None:
        """Allocate the table: pages that are never written take no memory."""
        row = self.outcomes * like.shape[1] * like.element_size()
        self.kept = max(1, min(self.images, self.room // row))
        places = self.kept * self.outcomes
        if self.folder is None:
            make = _mapped if self.device.type == "cpu" else self._zeros
            self._answers = make(places * like.shape[1], like.dtype).view(places, -1)
            self._known = make(places, torch.bool)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kind = f"{self.images}-{self.kept}-{self.outcomes}-{like.shape[1]}-{str(like.dtype).removeprefix('torch.')}"
        self._answers = _file(self.folder / f"answers-{kind}.bin", places * like.shape[1], like.dtype).view(places, -1)
        self._known = _file(self.folder / f"known-{kind}.bin", places, torch.bool)

    def _zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(count, dtype=dtype, device=self.device)

    def _keep(self, index: Tensor, outcome: Tensor, answers: Tensor) -> None:
        fits = index < self.kept
        at = (index * self.outcomes + outcome)[fits]
        self._answers[at] = answers[fits]
        self._known[at] = True  # after the output, because other processes may read the same file


def size(missing: int) -> int:
    """Images that the teacher is run on when `missing` are missing, if the batch has that many."""
    return max(FLOOR, STEP * -(-missing // STEP))


@torch.no_grad()
def same_in_parts(answer: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether outputs for parts of a batch, of all sizes that the cache uses, equal those for the whole bit for bit.

    Each part is a random selection of the batch in random order. For a batch of 64 this costs nine forward passes.
    """
    whole = answer(images)
    generator = torch.Generator().manual_seed(0)
    for count in (*range(FLOOR, len(images), STEP), len(images)):
        which = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        if not torch.equal(answer(_like(images, images[which])), whole[which]):
            return False
    return True


def _like(images: Tensor, part: Tensor) -> Tensor:
    """Give a part of a batch the batch's memory format, which indexing may lose."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros in a separate memory map: pages are allocated when first written and freed when the tensor is dropped.

    Memory from malloc would be reused for activations, so the next run would not find it in one piece.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    try:
        pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    except OSError as error:
        room = f"{count * dtype.itemsize / 2**30:.1f} GiB"
        raise InputError(
            f"a teacher's outputs may take {room}, which cannot be allocated: give a smaller --teacher-cache"
        ) from error
    return torch.frombuffer(pages, dtype=dtype)


def _file(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    """A tensor backed by a sparse file, which takes no more disk space than was written."""
    return torch.from_file(str(path), shared=True, size=count, dtype=dtype)
