"""The answers of a run's teacher, kept and looked up where that changes no bit and pays.

The table itself is in `sftn.training.output_cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sftn.data.batch import Batch
from sftn.data.loader import Batches
from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.networks.staged import Activations, StagedNet
from sftn.spec.run import Run
from sftn.tasks.distillation import Distiller
from sftn.training.output_cache import FLOOR, Asked, hit_rate, same_in_parts

FIELDS = ("logits", "embedding")
"""What can be kept: a few hundred numbers of a view of an image; its maps have many thousands."""
LEAST = 0.1
"""The share of answers that must be expected to be looked up; for less, the memory is not worth it."""

TELL = 0.1
"""GiB of answers from which on a person is told of them; less is nobody's concern."""


def wanted(run: Run) -> set[str] | None:
    """What a run's main phase takes of its teacher's answers to the images of a batch.

    Returns:
        Names of `Activations`; None for a run that has no teacher, or one that normalises by the batch (OH), or that is
        asked about other views of an image (SSKD).
    """
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return None
    methods = [METHODS[term.method] for term in run.objective.terms]
    if any(method.batch_statistics or method.copies != 1 or method.views is not Method.views for method in methods):
        return None
    return {name for method in methods for name in method.teacher_outputs} | ({"logits"} if run.objective.kd else set())


class Answers:
    """What a frozen teacher said to the batches of a run, or of all runs of a cohort.

    Whether answers are kept is decided at the first whole batch, as it is in training: if they are the same bits in
    parts of the batch, and if enough of them fit. A batch of another size, as the last one of an epoch may be, is put
    to the teacher itself. The answer to the last batch stands there for others who are given the same tensor.

    Args:
        teacher: its name.
        fields: which of `FIELDS` are wanted.
        epochs: of the longest run.
        batch: images a step.
        room: bytes that may be taken.
        say: is told, in one line, if many answers are kept, or why they are not where that would have paid.
    """

    def __init__(
        self, teacher: str, fields: Sequence[str], epochs: int, batch: int, room: float, say: Callable[[str], None]
    ) -> None:
        self.teacher, self.fields, self.epochs, self.batch, self.room = teacher, fields, epochs, batch, room
        self.say = say
        self._asked: Asked | None = None
        self._decided = False
        self._images: Tensor | None = None

    @staticmethod
    def of(runs: Sequence[Run], gib: float, say: Callable[[str], None]) -> Answers | None:
        """For runs that share a teacher, if something can be gained.

        Args:
            runs: one, or a cohort; those who do not share the teacher (see `wanted`) do not matter.
            gib: the room, in GiB; 0 for none.
            say: as above.

        Returns:
            None where some run must have the teacher's maps: then it is run for every batch anyway.

        Raises:
            InputError: the room is negative.
        """
        if not gib >= 0:
            raise InputError(f"ask_once is {gib}: give GiB, or 0 to ask the teacher every time")
        asks = [found for run in runs if (found := wanted(run)) is not None]
        fields = [name for name in FIELDS if any(name in found for found in asks)]
        batch = runs[0].schedule.batch
        if not gib or not fields or any(found - set(FIELDS) for found in asks) or batch <= FLOOR:
            return None
        teacher = runs[0].teacher
        assert teacher is not None, "somebody asks it"
        name = teacher.name if isinstance(teacher, Run) else teacher.network
        return Answers(name, fields, max(run.schedule.epochs for run in runs), batch, gib * 2**30, say)

    def serve(self, run: Run, task: nn.Module, loader: Batches) -> Batches:
        """Let a run's main phase ask here.

        Args:
            run: one of those that this was made for.
            task: of its main phase.
            loader: of its batches.

        Returns:
            The loader to train with. Where it does not number the views of an image, as one of streamed images does
            not, or where few views come twice, the teacher goes on being asked itself.
        """
        views = getattr(loader, "views", None)
        if views is None or not isinstance(task, Distiller) or wanted(run) is None:
            return loader
        if hit_rate(self.epochs, views) < LEAST:
            return loader
        numbered = _Numbered(loader)
        task.answers = partial(self._answer, task.teacher, numbered)
        return numbered

    def record(self) -> dict[str, int] | None:
        """For a result, if answers were kept: since this process began, and of all who shared them."""
        if self._asked is None:
            return None
        asked = self._asked
        return {"views": asked.outcomes, "kept": asked.kept, "questions": asked.asked, "looked_up": asked.hits}

    def _answer(self, teacher: StagedNet, loader: _Numbered, images: Tensor, index: Tensor) -> Activations:
        """(B, C, H, W), (B,) -> the teacher's activations without their maps."""
        if images is not self._images:
            self._found, self._images = self._look(teacher, loader, images, index), images
        return self._found

    def _look(self, teacher: StagedNet, loader: _Numbered, images: Tensor, index: Tensor) -> Activations:
        if len(images) == self.batch and not self._decided:
            self._decide(teacher, loader, images)
        if self._asked is None or len(images) != self.batch:
            return teacher.activations(images)._replace(features=(), preacts=())
        found = self._asked(images, index, loader.outcomes[index])
        parts = dict(zip(self.fields, found.split(self._widths, dim=1)))
        none = found.new_empty(len(images), 0)
        logits, embedding = (parts[name].contiguous() if name in parts else none for name in FIELDS)
        return Activations(logits, embedding, (), ())

    def _decide(self, teacher: StagedNet, loader: _Numbered, images: Tensor) -> None:
        self._decided = True
        answer = partial(_side_by_side, teacher, self.fields)
        activations, like = teacher.activations(images), answer(images)
        self._widths = [getattr(activations, name).shape[1] for name in self.fields]
        count, views = len(loader.outcomes), loader.views
        row = views * like.shape[1] * like.element_size()
        kept = min(count, int(self.room) // row)
        rate = kept / count * hit_rate(self.epochs, views)
        if rate < LEAST:
            return
        if not same_in_parts(answer, images):
            self.say(
                f"teacher {self.teacher} asked every time: its answers to parts of a batch would be rounded otherwise"
            )
            return
        self._asked = Asked(answer, count, views, room=int(self.room), device=images.device)
        which = f"all {count:,}" if kept == count else f"{kept:,} of {count:,}"
        gib = kept * row / 2**30
        if gib >= TELL:
            self.say(
                f"teacher {self.teacher} asked once: {views} views of {which} images in at most {gib:.1f} GiB, "
                f"{100 * rate:.0f} % looked up in {self.epochs} epochs"
            )


def _side_by_side(teacher: StagedNet, fields: Sequence[str], images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D): those of the teacher's activations that are kept."""
    activations = teacher.activations(images)
    return torch.cat([getattr(activations, name) for name in fields], dim=1)


class _Numbered:
    """A run's loader, of which one knows how the epoch that it is in shows each image."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.views: int = loader.views

    def __len__(self) -> int:
        return len(self.loader)

    def images(self, step: int) -> int:
        """Images of a step, counted from 1."""
        return self.loader.images(step)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on, both counted from 0."""
        self.outcomes: Tensor = self.loader.outcomes(epoch)
        return self.loader.epoch(epoch, start)
