"""Pair: the aligned shapes and other facts about a teacher and a student that distillation methods need."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.staged import Activations, Shape, Shapes, StagedNet
from sftn.spec.alignment import Alignment


@dataclass(frozen=True)
class Pair:
    """A teacher and a student as known before training.

    `teacher.features[k]` and `student.features[k]` belong together, however many stages the networks have: everything
    here, and everything that a method receives, is aligned.
    """

    teacher: Shapes
    student: Shapes
    closing_norms: tuple[nn.BatchNorm2d | None, ...]
    """The teacher's closing norms, one for each aligned stage; None where a stage has none."""
    labels: Tensor
    """(N,) int64: the labels of the training images, in the order of `Batch.index`."""
    classes: int
    alignment: Alignment

    @staticmethod
    def of(
        teacher: StagedNet, student: StagedNet, image: Shape, labels: Tensor, alignment: Alignment | None = None
    ) -> Pair:
        """Make the pair of two networks, with one dry forward each.

        Args:
            teacher: the network to learn from.
            student: the network that learns.
            image: (C, H, W) of the training images.
            labels: (N,) labels of the training images.
            alignment: which stages belong together; None for the result of `align`.

        Raises:
            InputError: their classes differ, or the alignment names a stage that does not exist or goes backwards.
        """
        theirs, ours = teacher.shapes(image), student.shapes(image)
        if theirs.logits != ours.logits:
            raise InputError(
                f"{teacher.name} has {theirs.logits} classes and {student.name} has {ours.logits}: "
                "give both networks the classes of the data"
            )
        stages = align(len(ours.features), len(theirs.features)) if alignment is None else alignment
        _check(stages, student, teacher)
        norms = teacher.closing_norms
        return Pair(
            teacher=_select(theirs, [t for _, t in stages]),
            student=_select(ours, [s for s, _ in stages]),
            closing_norms=tuple(norms[t] for _, t in stages),
            labels=labels,
            classes=ours.logits,
            alignment=stages,
        )

    def aligned(self, student: Activations, teacher: Activations) -> tuple[Activations, Activations]:
        """Reduce activations to the aligned stages, in the pair's order."""
        ours, theirs = zip(*self.alignment)
        return _keep(student, ours), _keep(teacher, theirs)


def align(student_stages: int, teacher_stages: int) -> Alignment:
    """Align stages from the end: last with last, and so on, until the network with fewer stages has none left."""
    depth = min(student_stages, teacher_stages)
    return tuple((student_stages - depth + k, teacher_stages - depth + k) for k in range(depth))


def _check(alignment: Alignment, student: StagedNet, teacher: StagedNet) -> None:
    if not alignment:
        raise InputError(f"{teacher.name} and {student.name} have no stages to align")
    for s, t in alignment:
        if not (0 <= s < len(student.stages) and 0 <= t < len(teacher.stages)):
            raise InputError(
                f"student stage {s + 1} cannot be aligned with teacher stage {t + 1}: "
                f"{student.name} has {len(student.stages)} stages and {teacher.name} has {len(teacher.stages)}"
            )
    for before, after in itertools.pairwise(alignment):
        if before[0] >= after[0] or before[1] >= after[1]:
            raise InputError("the alignment must go forwards in both networks: order its pairs by stage")


def _select(shapes: Shapes, stages: list[int]) -> Shapes:
    return shapes._replace(
        features=tuple(shapes.features[i] for i in stages), flows=tuple(shapes.flows[i] for i in stages)
    )


def _keep(activations: Activations, stages: tuple[int, ...]) -> Activations:
    """Select some stages; a teacher of which only logits and embedding are needed may return no maps."""
    features, preacts = activations.features, activations.preacts
    return activations._replace(
        features=tuple(features[i] for i in stages if features), preacts=tuple(preacts[i] for i in stages if preacts)
    )
