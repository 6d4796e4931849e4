"""Teacher cache: one teacher's outputs, shared by the runs of a cohort and stored across epochs where that pays.

The table of stored outputs is in `sftn.training.output_cache`. It is on disk, for later runs and other processes on the
machine (`sftn.runs.output_stores`), or in memory where no store can be used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sftn.data.dataset import Dataset
from sftn.data.loader import Batches, view_count
from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.networks.fast.product_choices import chosen_by
from sftn.networks.staged import Activations, StagedNet
from sftn.runs.output_stores import identity, open_stores
from sftn.runtime.collectives import world
from sftn.spec.run import Run
from sftn.storage.row_store import Missing
from sftn.storage.store_folder import HEAD, SEAL
from sftn.training.output_cache import FLOOR, OnDisk, OutputCache, hit_rate, same_in_parts
from sftn.training.teacher_outputs import TeacherOutputs

logger = logging.getLogger(__name__)
FIELDS = ("logits", "embedding")
"""Outputs that can be stored: a few hundred numbers per view of an image, where feature maps have many thousands."""
LEAST = 0.1
"""Smallest expected share of lookups; below it, storing outputs is not worth it."""
TELL = 0.1
"""GiB of stored outputs from which their size is logged."""


def outputs_needed(run: Run) -> set[str] | None:
    """Which of the teacher's outputs for the images of a batch a run's main phase reads.

    Returns:
        Names of `Activations`; None for a run without a teacher, one whose teacher normalises by the batch (OH, AB if
        it is asked to), or one whose teacher is run on other views of an image (SSKD).
    """
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return None
    methods = [METHODS[term.method] for term in run.objective.terms]
    by_batch = any(term.options.get("batch_statistics") for term in run.objective.terms)  # AB, if it is asked to
    if by_batch or any(_looks_otherwise(method) for method in methods):
        return None
    return {name for method in methods for name in method.teacher_outputs} | ({"logits"} if run.objective.kd else set())


def _looks_otherwise(method: type[Method]) -> bool:
    """Whether a method's teacher normalises by the batch, or is run on other views than a batch's images."""
    return method.batch_statistics or method.copies != 1 or method.views is not Method.views


def sharing(runs: Sequence[Run], others: Sequence[Run]) -> int:
    """How many of the other runs could find the teacher's outputs that a run, or a cohort, leaves on disk."""
    needed = {name for run in runs for name in outputs_needed(run) or ()}
    if needed - set(FIELDS):
        return 0

    def same(other: Run) -> bool:
        settings = [(run.teachers, run.data, run.precision, run.schedule.batch) for run in (other, runs[0])]
        asked = outputs_needed(other) or set()
        return settings[0] == settings[1] and bool(asked) and asked <= needed

    return sum(map(same, others))


class TeacherCache:
    """The outputs of one frozen teacher, or of several side by side, for one run or all runs of a cohort.

    A cohort runs its teacher once per batch. In addition, outputs may be stored for every view of an image. The first
    full batch of training decides whether they are: the outputs must have the same bits when the teacher is run on
    parts of the batch, and enough of them must be found, by these runs or by those that wait. A batch of another size,
    such as an epoch's last one, is always run through the teacher.

    Args:
        runs: one run, or a cohort; runs that need no outputs for the batch (see `outputs_needed`) do not matter.
        dataset: the images.
        gib: room for stored outputs, in GiB: on disk for all teachers together, or in memory for this one; 0 stores
            none. Used on a CPU in a single process only.
        waiting: how many runs will ask for the same outputs later (see `sharing`).
        compiled: whether steps are compiled. Without its student the teacher is not, and rounds otherwise, so it must
            not depend on others whether its outputs are looked up.
    """

    def __init__(
        self, runs: Sequence[Run], dataset: Dataset, gib: float, *, waiting: int = 0, compiled: bool = False
    ) -> None:
        needed = {name for run in runs for name in outputs_needed(run) or ()}
        self.cohort = len(runs) > 1
        self.fields = [name for name in FIELDS if name in needed]
        self.needs_features = bool(needed - set(FIELDS))
        self.run, self.dataset, self.waiting = runs[0], dataset, waiting
        self.epochs, self.batch = max(run.schedule.epochs for run in runs), runs[0].schedule.batch
        self.images, self.room = len(dataset.train), int(gib * 2**30)
        self.name = " and ".join(one.name if isinstance(one, Run) else one.network for one in runs[0].teachers)
        views = None if dataset.streamed else view_count(dataset.padding, dataset.flip)
        may = views is not None and (not compiled or hit_rate(self.epochs, views) >= LEAST)
        self.keeps = bool(gib and self.fields and may) and not self.needs_features and self.batch > FLOOR
        """Whether outputs may be stored, if the first batch finds that it pays."""
        self.trial: dict[str, Any] | None = None
        """How the teacher did on test images before training (`sftn.runs.teacher.tried`)."""
        self._teacher: StagedNet | None = None
        self._table: OutputCache | None = None
        self._loader: Batches | None = None
        self._at: tuple[Batches, int, int] | None = None
        self._epoch = -1

    def outputs(self, run: Run, device: torch.device) -> TeacherOutputs:
        """Where the main phase of one of the runs gets its teacher's outputs, on a device."""
        kept = self.keeps and device.type == "cpu" and world() == 1
        return SharedOutputs(self) if (self.cohort or kept) and outputs_needed(run) is not None else TeacherOutputs()

    def record(self) -> dict[str, int] | None:
        """Statistics for a result, of all runs that share the cache in this process; None if nothing is stored."""
        if self._table is None:
            return None
        table = self._table
        return {
            "views": table.outcomes,
            "kept": table.kept,
            "questions": table.asked,
            "looked_up": table.hits,
            "from_other_runs": table.from_others,
        }

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher that all runs use: that of the first run to call this."""
        if self._teacher is None:
            self._teacher = teacher
        return self._teacher

    def find(self, teacher: StagedNet, at: tuple[Batches, int, int], images: Tensor, index: Tensor) -> Activations:
        """The outputs for a batch, reused if another run has just needed the same ones.

        Args:
            teacher: the teacher, in case it must be run.
            at: loader, epoch and step of the batch.
            images: (B, C, H, W)
            index: (B,) indices of the training images.
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
        answer, views = partial(_side_by_side, teacher, self.fields), loader.views
        activations, like = teacher.activations(images), answer(images)
        self._widths = [getattr(activations, name).shape[1] for name in self.fields]
        row = views * like.shape[1] * like.element_size()
        kept = min(self.images, self.room // row)
        alone, together = (
            kept / self.images * hit_rate(epochs, views) for epochs in (self.epochs, self.epochs * (1 + self.waiting))
        )
        rows = self._on_disk(teacher, images, like, create=max(alone, together) >= LEAST)
        if rows is not None:
            kept = rows.places // views
            alone = kept / self.images * (1 - (1 - rows.filled) * (1 - hit_rate(self.epochs, views)))
        if alone < LEAST and (rows is None or together < LEAST):
            return
        if not same_in_parts(answer, images):
            logger.info(
                "teacher %s is run on every batch: in parts of a batch its outputs are rounded differently", self.name
            )
            return
        self._table = OutputCache(answer, self.images, views, room=self.room, rows=rows, device=images.device)
        gib = kept * row / 2**30
        if gib >= TELL:
            which = f"all {kept:,}" if kept == self.images else f"{kept:,} of {self.images:,}"
            where = f"in at most {gib:.1f} GiB" + (" of memory" if rows is None else " on disk")
            found = f"{100 * alone:.0f} % will be looked up over {self.epochs} epochs"
            if rows is not None:
                found += f", {100 * rows.filled:.0f} % are there already"
            logger.info(
                "outputs of teacher %s are stored for %d views of %s images %s: %s",
                self.name,
                views,
                which,
                where,
                found,
            )

    def _on_disk(self, teacher: StagedNet, images: Tensor, like: Tensor, *, create: bool) -> OnDisk | None:
        """The table on disk; None if there is none and it is not to be created, or if it cannot be used."""
        assert self._loader is not None
        assert self._loader.views is not None
        views, widths = self._loader.views, self._widths
        row = views * (like.shape[1] * like.element_size() + SEAL * len(widths))
        kept = min(self.images, (self.room - HEAD * len(widths)) // row)
        if kept < 1:
            return None
        products = chosen_by(teacher, partial(teacher.activations, images))
        about = identity(self.run, self.dataset, teacher, products)
        fields = [(name, width, like.dtype) for name, width in zip(self.fields, widths)]
        try:
            stores = open_stores(self.run, self.dataset, about, fields, kept, views, room=self.room, create=create)
        except Missing:
            return None
        except InputError as error:
            logger.warning("outputs of teacher %s are not kept for other runs: %s", self.name, error)
            return None
        return OnDisk(stores, like)


class SharedOutputs(TeacherOutputs):
    """The outputs of a `TeacherCache` for one of its runs; a batch is identified by its place in the epoch."""

    before_step = True

    def __init__(self, cache: TeacherCache) -> None:
        self.cache = cache

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher that all runs of the cache use."""
        return self.cache.adopt(teacher)

    def next_batch(self, loader: Batches, epoch: int, step: int) -> None:
        """Note which batch is next: the same batch of the same loader has the same outputs."""
        self._at = loader, epoch, step

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The outputs for the batch that `next_batch` named."""
        return self.cache.find(teacher, self._at, images, index)


def _side_by_side(teacher: StagedNet, fields: Sequence[str], images: Tensor) -> Tensor:
    """(B, C, H, W) images -> (B, D): the stored ones of the teacher's activations, side by side."""
    activations = teacher.activations(images)
    return torch.cat([getattr(activations, name) for name in fields], dim=1)
