"""What the runs of a cohort share: one teacher, its answers, and the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from torch import Tensor

from sftn.data.batch import Batch
from sftn.data.loader import Batches
from sftn.networks.staged import Activations, StagedNet
from sftn.runs.teacher_cache import Answers
from sftn.runtime.signals import Stop
from sftn.tasks.distillation import Distiller

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Sharing:
    """What the runs of a cohort have in common.

    Args:
        answers: of the teacher, if they are kept for longer than a batch.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers = answers
        self.stop = Stop()
        self._teacher: StagedNet | None = None
        self._images: Tensor | None = None
        self._feeds: dict[tuple[int, bool], _Stream] = {}

    def training_batches(self, make: Callable[[], Batches], copies: int, flip: bool, fabric: Fabric) -> Batches:
        """One loader for all that want the same of it; its images are cast once to what Fabric would cast them to.

        It would for each run anew, and who asks the teacher is known by the images being the same tensor.
        """
        if (copies, flip) not in self._feeds:
            self._feeds[copies, flip] = _Stream(make(), fabric._precision.convert_input)
        return self._feeds[copies, flip]

    def teacher(self, task: Distiller) -> None:
        """Let one teacher, and one answer for each batch, serve all.

        Not OH's, whose teacher is another network; SSKD's views are its own, and so are the answers to them.
        """
        if not task.foldable:
            return
        if self._teacher is None:
            self._teacher = task.teacher
        task.to(next(self._teacher.parameters()).device)
        task.teacher = self._teacher
        if task.viewer is None:
            task.answers = self._answer

    def _answer(self, images: Tensor, index: Tensor) -> Activations:
        """(B, C, H, W) and (B,) -> the teacher's activations, computed anew only for another tensor of images."""
        assert self._teacher is not None, "a teacher was shared before"
        if images is not self._images:
            self._activations, self._images = self._teacher.activations(images), images
        return self._activations


class _Stream:
    """A loader for several, each of which asks for an epoch's batches; those at the same step get the same tensors.

    The last batch is kept, so whoever stands elsewhere costs a new start of the epoch and nothing else.
    """

    def __init__(self, loader: Batches, cast: Callable[[Tensor], Tensor]) -> None:
        self.loader, self.cast = loader, cast
        self._at = (-1, 0)
        self._rest: Iterator[Batch] = iter(())

    def __len__(self) -> int:
        return len(self.loader)

    def images(self, step: int) -> int:
        """Images of a step, counted from 1."""
        return self.loader.images(step)

    @property
    def views(self) -> int | None:
        """As `Loader` has it; None where the loader does not number the views of an image."""
        return getattr(self.loader, "views", None)

    def outcomes(self, epoch: int) -> Tensor:
        """As `Loader` has it."""
        return self.loader.outcomes(epoch)  # type: ignore[attr-defined]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on, both counted from 0."""
        for step in range(start, len(self.loader)):
            yield self._take(epoch, step)

    def _take(self, epoch: int, step: int) -> Batch:
        if self._at != (epoch, step):
            if self._at != (epoch, step - 1):
                with suppress(AttributeError):  # an iterator need not have workers to end
                    self._rest.close()  # type: ignore[attr-defined]
                self._rest = self.loader.epoch(epoch, start=step)
            batch = next(self._rest)
            self._batch, self._at = batch._replace(images=self.cast(batch.images)), (epoch, step)
        return self._batch
