"""Summary of a network's layers and of what a student's branches add to them: Tables 20 to 22 for any pair.

`sftn.profiling.layers` records the layers, this module counts them, and `sftn.report.pages.summary` shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sftn.networks.alignment import align
from sftn.networks.staged import Shape, StagedNet
from sftn.profiling.layers import Layer as Layer
from sftn.profiling.layers import branch_layers as branch_layers
from sftn.profiling.layers import layers as layers
from sftn.profiling.layers import trace
from sftn.tasks.student_branches import StudentBranches


@dataclass(frozen=True)
class GrownBranch:
    """A summary of one branch. Stages are counted from 1."""

    number: int
    teacher_stage: int
    student_stage: int
    """The stage that the transform replaces; the branch runs the stages after it."""
    transform: Layer
    """The transform's convolution."""
    resized: bool
    """Whether the map is resized before the convolution."""
    source: Shape
    target: Shape | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Student:
    """A summary of the student, with its branches in the teacher."""

    name: str
    parameters: int
    multiply_adds: int
    features: tuple[Shape, ...]
    alignment: tuple[tuple[int, int], ...]
    """Pairs (teacher stage, student stage), counted from 1."""
    branches: tuple[GrownBranch, ...]
    layers: tuple[Layer, ...]
    """The layers of the branches, one branch after the other."""


@dataclass(frozen=True)
class Description:
    """A summary of a network and, if there is a student, of its branches."""

    network: str
    image: Shape
    layers: tuple[Layer, ...]
    features: tuple[Shape, ...]
    """The feature shape of each stage."""
    closing_norms: tuple[bool, ...]
    """Whether each stage has a closing norm; OH needs it."""
    parameters: int
    multiply_adds: int
    """Multiply-adds for one image."""
    student: Student | None

    @property
    def training_cost(self) -> float:
        """Multiply-adds of teacher and branches divided by the teacher's: how much branches add to a training step."""
        branches = self.student.branches if self.student else ()
        return 1 + sum(branch.multiply_adds for branch in branches) / self.multiply_adds


def describe(
    network: StagedNet, image: Shape, student: Callable[[], StagedNet] | None = None, **options: Any
) -> Description:
    """Summarise a network before training, or a teacher with the branches of its student.

    Args:
        network: the network, or the teacher; it is not changed.
        image: (C, H, W) of the images.
        student: builds a student, as for `StudentBranches`.
        **options: options of `StudentBranches`; `branches` and `alignment` affect the summary.

    Raises:
        InputError: the branches cannot be grown.
    """
    grown = None
    if student is not None:
        grown = StudentBranches(network, student, image, **options)
        grown.branches.to(next(network.parameters()))
    rows = trace(network, image, "B_T" if grown else "B", grown)
    own = tuple(row for row in rows if not row.branch)
    return Description(
        network=network.name,
        image=image,
        layers=own,
        features=network.shapes(image).features,
        closing_norms=tuple(norm is not None for norm in network.closing_norms),
        parameters=_size(network),
        multiply_adds=sum(row.multiply_adds for row in own),
        student=None if student is None or grown is None else _student(student(), grown, image, rows, options),
    )


def _student(
    student: StagedNet, grown: StudentBranches, image: Shape, rows: list[Layer], options: dict[str, Any]
) -> Student:
    alignment = options.get("alignment") or align(len(student.stages), len(grown.teacher.stages))
    branches = []
    for place, branch in zip(grown.growth, grown.branches):
        ours = [row for row in rows if row.branch == place.number]
        transform = next(at for at, row in enumerate(ours) if row.name.startswith("Conv"))
        branches.append(
            GrownBranch(
                number=place.number,
                teacher_stage=place.teacher_stage + 1,
                student_stage=place.student_stage + 1,
                transform=ours[transform],
                resized=transform > 0,
                source=place.source,
                target=place.target,
                parameters=_size(branch),
                multiply_adds=sum(row.multiply_adds for row in ours),
            )
        )
    return Student(
        name=student.name,
        parameters=_size(student),
        multiply_adds=sum(row.multiply_adds for row in layers(student, image)),
        features=student.shapes(image).features,
        alignment=tuple((theirs + 1, ours + 1) for ours, theirs in alignment),
        branches=tuple(branches),
        layers=tuple(row for row in rows if row.branch),
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
