"""A frozen teacher that is asked only once about each view of an image."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sftn.errors import InputError

FLOOR = 16
"""Images that the teacher is asked about at least: of fewer, matrix products are rounded in another order."""
STEP = 4
"""Above that it is asked about multiples of so many: every new size makes oneDNN prepare all convolutions anew."""


def hit_rate(epochs: int, outcomes: int) -> float:
    """The share of questions that were asked before, expected over so many epochs of uniformly drawn outcomes."""
    return 1 - outcomes * (1 - (1 - 1 / outcomes) ** epochs) / epochs


class OutputCache:
    """Answers of a frozen teacher, kept by image and outcome of its augmentation, as they were first given.

    The teacher is run on what has not been asked before, together with enough other images of the batch to make
    `FLOOR` and then a multiple of `STEP`, or the whole batch. On a CPU an image's answer is then usually the same, bit
    for bit, whatever stands beside it, so training goes as if the teacher had been run every time, if all batches have
    one size; `same_in_parts` tells whether that holds for a teacher on a device. Where it does not, answers repeat what
    was first computed, within rounding of what would be.

    Finding what is missing waits for the device, which costs nothing on a CPU.

    Args:
        answer: (B, C, H, W) images -> (B, D); logits, embedding, or both side by side. Its dtype is kept.
        images: N, how many there are.
        outcomes: of the augmentation of an image: `Loader.views`.
        room: bytes that answers may take; with less than N·outcomes·D numbers need, only the first images are kept.
        folder: keep the answers in files there, for the next process that asks the same teacher (in the same
            precision, on the same device, about the same images: name the folder so). Several may write at once.
            Nothing is synced: after a power cut, remove them.
        device: where answers are kept; a folder needs the CPU.

    Raises:
        InputError: a folder is asked for on another device than a CPU. The first question: there is no such room.
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
            raise InputError(f"answers in files need a CPU, not {self.device.type}: leave the folder out")
        self.kept = 0
        """Images whose answers are kept, known after the first question."""
        self.asked = self.hits = 0

    @torch.no_grad()
    def __call__(self, views: Tensor, index: Tensor, outcome: Tensor) -> Tensor:
        """What the teacher says.

        Args:
            views: (B, C, H, W), as augmented.
            index: (B,) which images these are.
            outcome: (B,) int64, how each was augmented, from 0: `Loader.outcomes` of them.

        Returns:
            (B, D)
        """
        self.asked += len(views)
        if not self.kept:
            first = self.answer(views)
            self._open(first)
            if not self._known.any():  # else the files of somebody before have some already
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
        """The share of questions that needed no teacher."""
        return self.hits / max(1, self.asked)

    def _open(self, like: Tensor) -> None:
        """Make room: untouched pages of it take no memory."""
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
        self._known[at] = True  # after the answer, for whoever reads the same file


def size(missing: int) -> int:
    """Images that the teacher is asked about where so many are missing, if the batch has them."""
    return max(FLOOR, STEP * -(-missing // STEP))


@torch.no_grad()
def same_in_parts(answer: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether answers to parts of a batch, of all sizes that the cache asks for, have the bits of those to the whole.

    Each part has its images from all over the batch, in another order. For a batch of 64 this costs nine forwards.
    """
    whole = answer(images)
    generator = torch.Generator().manual_seed(0)
    for count in (*range(FLOOR, len(images), STEP), len(images)):
        which = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        if not torch.equal(answer(_like(images, images[which])), whole[which]):
            return False
    return True


def _like(images: Tensor, part: Tensor) -> Tensor:
    """A part of some images, in their memory format: indexing may lose it."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros in memory of their own: pages come when they are first written and go back when the tensor is dropped.

    What malloc gave would be kept for activations and not be found in one piece by the next run.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    try:
        pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    except OSError as error:
        room = f"{count * dtype.itemsize / 2**30:.1f} GiB"
        raise InputError(
            f"a teacher's answers may take {room}, which are not there: give less --teacher-cache"
        ) from error
    return torch.frombuffer(pages, dtype=dtype)


def _file(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    """A tensor that lives in a file, which takes no more of the disk than was written."""
    return torch.from_file(str(path), shared=True, size=count, dtype=dtype)
