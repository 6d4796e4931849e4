"""What runs of one teacher share of it: its outputs for a batch, and those kept and looked up where that pays.

The table itself is in `sftn.training.output_cache`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sftn.data.dataset import Dataset
from sftn.data.loader import Batches, view_count
from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.networks.staged import Activations, StagedNet
from sftn.runtime.collectives import world
from sftn.spec.run import Run
from sftn.training.output_cache import FLOOR, OutputCache, hit_rate, same_in_parts
from sftn.training.teacher_outputs import TeacherOutputs

logger = logging.getLogger(__name__)
FIELDS = ("logits", "embedding")
"""What can be kept: a few hundred numbers of a view of an image; its maps have many thousands."""
LEAST = 0.1
"""The share of outputs that must be expected to be looked up; for less, the memory is not worth it."""
TELL = 0.1
"""GiB of outputs from which on a person is told of them."""


def outputs_needed(run: Run) -> set[str] | None:
    """What a run's main phase reads of its teacher's outputs for the images of a batch.

    Returns:
        Names of `Activations`; None for a run that has no teacher, or one that normalises by the batch (OH), or that is
        run on other views of an image (SSKD).
    """
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return None
    methods = [METHODS[term.method] for term in run.objective.terms]
    if any(method.batch_statistics or method.copies != 1 or method.views is not Method.views for method in methods):
        return None
    return {name for method in methods for name in method.teacher_outputs} | ({"logits"} if run.objective.kd else set())


class TeacherCache:
    """The outputs of one frozen teacher, for a run or for all runs of a cohort.

    A cohort runs one teacher, once for each batch. Besides, outputs may be kept for every view of an image. Whether
    they are is decided at the first whole batch, as it is in training: if they are the same bits in parts of the batch,
    and if enough of them fit. A batch of another size, as the last one of an epoch may be, goes through the teacher.

    Args:
        runs: one, or a cohort; those that need no outputs for the batch itself (see `outputs_needed`) do not matter.
        dataset: the images.
        gib: memory for outputs that are kept, in GiB; 0 keeps none. On a CPU, in one process.

    Raises:
        InputError: the memory is negative.
    """

    def __init__(self, runs: Sequence[Run], dataset: Dataset, gib: float) -> None:
        if not gib >= 0:
            raise InputError(f"teacher_cache is {gib}: give GiB, or 0 to ask the teacher every time")
        needed = {name for run in runs for name in outputs_needed(run) or ()}
        self.cohort = len(runs) > 1
        self.fields = [name for name in FIELDS if name in needed]
        self.needs_features = bool(needed - set(FIELDS))
        self.epochs, self.batch = max(run.schedule.epochs for run in runs), runs[0].schedule.batch
        self.images, self.room = len(dataset.train), int(gib * 2**30)
        teacher = runs[0].teacher
        self.name = "" if teacher is None else teacher.name if isinstance(teacher, Run) else teacher.network
        views = None if dataset.streamed else view_count(dataset.padding, dataset.flip)
        pays = views is not None and hit_rate(self.epochs, views) >= LEAST
        self.keeps = bool(gib and self.fields and pays) and not self.needs_features and self.batch > FLOOR
        """Whether outputs are to be kept, if the first batch shows that they can be."""
        self._teacher: StagedNet | None = None
        self._table: OutputCache | None = None
        self._loader: Batches | None = None
        self._at: tuple[Batches, int, int] | None = None
        self._epoch = -1

    def outputs(self, run: Run, device: torch.device) -> TeacherOutputs:
        """For the main phase of one of the runs, on a device."""
        kept = self.keeps and device.type == "cpu" and world() == 1
        return SharedOutputs(self) if (self.cohort or kept) and outputs_needed(run) is not None else TeacherOutputs()

    def record(self) -> dict[str, int] | None:
        """For a result, if outputs were kept: since this process began, and of all who shared them."""
        if self._table is None:
            return None
        table = self._table
        return {"views": table.outcomes, "kept": table.kept, "questions": table.asked, "looked_up": table.hits}

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher of the first run, for all."""
        if self._teacher is None:
            self._teacher = teacher
        return self._teacher

    def find(self, teacher: StagedNet, at: tuple[Batches, int, int], images: Tensor, index: Tensor) -> Activations:
        """The outputs for a batch, which those before may have asked for.

        Args:
            teacher: in case it must be run.
            at: loader, epoch and step of the batch.
            images: (B, C, H, W)
            index: (B,)
        """
        if self._at != at:
            self._last, self._at = self._look(teacher, *at[:2], images, index), at
        return self._last

    def _look(self, teacher: StagedNet, loader: Batches, epoch: int, images: Tensor, index: Tensor) -> Activations:
        whole = len(images) == self.batch
        if whole and self.keeps and self._loader is None:
            self._loader = loader
            self._decide(teacher, images)
        if self._table is None or not whole or loader is not self._loader:
            activations = teacher.activations(images)
            return activations if self.needs_features else activations._replace(features=(), preacts=())
        if self._epoch != epoch:
            self._outcomes, self._epoch = loader.outcomes(epoch), epoch
        assert self._outcomes is not None, "views are numbered"
        found = self._table(images, index, self._outcomes[index])
        parts = dict(zip(self.fields, found.split(self._widths, dim=1)))
        none = found.new_empty(len(images), 0)
        logits, embedding = (parts[name].contiguous() if name in parts else none for name in FIELDS)
        return Activations(logits, embedding, (), ())

    def _decide(self, teacher: StagedNet, images: Tensor) -> None:
        loader = self._loader
        if images.device.type != "cpu" or loader is None or loader.views is None:
            return
        answer = partial(_side_by_side, teacher, self.fields)
        activations, like = teacher.activations(images), answer(images)
        self._widths = [getattr(activations, name).shape[1] for name in self.fields]
        row = loader.views * like.shape[1] * like.element_size()
        kept = min(self.images, self.room // row)
        rate = kept / self.images * hit_rate(self.epochs, loader.views)
        if rate < LEAST:
            return
        if not same_in_parts(answer, images):
            logger.info(
                "teacher %s is run on every batch: in parts of a batch its outputs are rounded otherwise", self.name
            )
            return
        self._table = OutputCache(answer, self.images, loader.views, room=self.room, device=images.device)
        gib = kept * row / 2**30
        if gib >= TELL:
            which = f"all {kept:,}" if kept == self.images else f"{kept:,} of {self.images:,}"
            kept_for = f"{loader.views} views of {which} images in at most {gib:.1f} GiB"
            expected = f"{100 * rate:.0f} % are looked up in {self.epochs} epochs"
            logger.info("outputs of teacher %s are kept for %s: %s", self.name, kept_for, expected)


class SharedOutputs(TeacherOutputs):
    """The outputs of a `TeacherCache`, for one of its runs; the batch is known by its place in the epoch."""

    before_step = True

    def __init__(self, cache: TeacherCache) -> None:
        self.cache = cache

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher that all runs of the cache have."""
        return self.cache.adopt(teacher)

    def next_batch(self, loader: Batches, epoch: int, step: int) -> None:
        """Remember which batch is next; the same one of the same loader has the same outputs."""
        self._at = loader, epoch, step

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The outputs for the batch that `next_batch` named."""
        return self.cache.find(teacher, self._at, images, index)


def _side_by_side(teacher: StagedNet, fields: Sequence[str], images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D): those of the teacher's activations that are kept."""
    activations = teacher.activations(images)
    return torch.cat([getattr(activations, name) for name in fields], dim=1)
