"""A frozen teacher that is asked only once about each view of an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sftn.errors import InputError

FLOOR = 16
"""Images that the teacher is asked about at least: of fewer, matrix products are rounded in another order."""


def outcome(rows: Tensor, columns: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Number the views of an image by crop and flip: 0 to 2·(2·padding + 1)² - 1, 162 for the usual 4 pixels."""
    return (rows * (2 * padding + 1) + columns) * 2 + mirrored


def hit_rate(epochs: int, outcomes: int) -> float:
    """The share of questions that were asked before, expected over so many epochs of uniformly drawn outcomes."""
    return 1 - outcomes * (1 - (1 - 1 / outcomes) ** epochs) / epochs


class Asked:
    """Answers of a frozen teacher, kept by image and outcome of its augmentation, as they were first given.

    The teacher is run on what has not been asked before, together with enough other images of the batch to make
    `FLOOR`. On a CPU an image's answer is then the same, bit for bit, whatever stands beside it, so training goes as if
    the teacher had been run every time; `same_in_parts` tells whether that holds for a teacher on a device. Where it
    does not, answers repeat what was first computed, within rounding of what would be.

    Finding what is missing waits for the device, which costs nothing on a CPU.

    Args:
        answer: (B, C, H, W) images -> (B, D); logits, embedding, or both side by side. Its dtype is kept.
        images: N, how many there are.
        outcomes: of the augmentation of an image.
        room: bytes that answers may take; with less than N·outcomes·D numbers need, only the first images are kept.
        folder: keep the answers in files there, for the next process that asks the same teacher (in the same
            precision, on the same device, about the same images: name the folder so). Several may write at once.
        device: where answers are kept; a folder needs the CPU.

    Raises:
        InputError: a folder is asked for on another device than a CPU.
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
            outcome: (B,) int64, how each was augmented, from 0.

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
            beside = known.nonzero()[: max(0, FLOOR - len(missing)), 0]
            questions = views[torch.cat([missing, beside])]
            if views.is_contiguous(memory_format=torch.channels_last):
                questions = questions.contiguous(memory_format=torch.channels_last)
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
            self._answers = torch.empty(places, like.shape[1], dtype=like.dtype, device=self.device)
            self._known = torch.zeros(places, dtype=torch.bool, device=self.device)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kind = f"{self.images}-{self.kept}-{self.outcomes}-{like.shape[1]}-{str(like.dtype).removeprefix('torch.')}"
        self._answers = _file(self.folder / f"answers-{kind}.bin", places * like.shape[1], like.dtype).view(places, -1)
        self._known = _file(self.folder / f"known-{kind}.bin", places, torch.bool)

    def _keep(self, index: Tensor, outcome: Tensor, answers: Tensor) -> None:
        fits = index < self.kept
        at = (index * self.outcomes + outcome)[fits]
        self._answers[at] = answers[fits]
        self._known[at] = True  # after the answer, for whoever reads the same file


@torch.no_grad()
def same_in_parts(answer: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether answers to parts of a batch, of `FLOOR` images and more, are bit for bit those to the whole of it."""
    whole = answer(images)
    parts = [images[torch.arange(len(images)) % step == 0] for step in (1, 2, 3)]
    parts += [images[-size:] for size in range(FLOOR, len(images), 7)]
    wholes = [whole[torch.arange(len(images)) % step == 0] for step in (1, 2, 3)]
    wholes += [whole[-size:] for size in range(FLOOR, len(images), 7)]
    return all(torch.equal(answer(part), expected) for part, expected in zip(parts, wholes) if len(part) >= FLOOR)


def _file(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    """A tensor that lives in a file, which takes no more of the disk than was written."""
    return torch.from_file(str(path), shared=True, size=count, dtype=dtype)
