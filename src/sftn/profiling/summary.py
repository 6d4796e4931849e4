"""What a network is made of, layer by layer, and what a student's branches add to it: Tables 20 to 22 for any pair.

`sftn.profiling.layers` reads the layers; here they are counted and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from sftn.networks.alignment import align
from sftn.networks.staged import Shape, StagedNet
from sftn.profiling.layers import Layer as Layer
from sftn.profiling.layers import branch_layers as branch_layers
from sftn.profiling.layers import layers as layers
from sftn.profiling.layers import single, times, trace
from sftn.tasks.student_branches import StudentBranches


@dataclass(frozen=True)
class GrownBranch:
    """A branch, seen from outside. Stages are counted from 1."""

    number: int
    teacher_stage: int
    student_stage: int
    """The stage whose place the transform takes; the branch runs those after it."""
    transform: Layer
    """Its convolution."""
    resized: bool
    """The map is resized before the convolution."""
    source: Shape
    target: Shape | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Student:
    """The student beside the teacher."""

    name: str
    parameters: int
    multiply_adds: int
    features: tuple[Shape, ...]
    alignment: tuple[tuple[int, int], ...]
    """(teacher stage, student stage), counted from 1."""
    branches: tuple[GrownBranch, ...]
    layers: tuple[Layer, ...]
    """Those of the branches, one branch after the other."""


@dataclass(frozen=True)
class Description:
    """A network, and the student's branches where there is a student."""

    network: str
    image: Shape
    layers: tuple[Layer, ...]
    features: tuple[Shape, ...]
    """One a stage."""
    closing_norms: tuple[bool, ...]
    """Whether the stage has one; OH needs it."""
    parameters: int
    multiply_adds: int
    """Of one image."""
    student: Student | None

    @property
    def training_cost(self) -> float:
        """Multiply-adds of teacher and branches over the teacher's: what the branches make of a training step."""
        branches = self.student.branches if self.student else ()
        return 1 + sum(branch.multiply_adds for branch in branches) / self.multiply_adds


def describe(
    network: StagedNet, image: Shape, student: Callable[[], StagedNet] | None = None, **options: Any
) -> Description:
    """All that is known of a network before it is trained, or of a teacher and the branches for its student.

    Args:
        network: the network, or the teacher; left as it is.
        image: (C, H, W) of the images.
        student: builds a student, as `StudentBranches` takes it.
        **options: those of `StudentBranches`; `branches` and `alignment` change what is shown.

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


def show(description: Description, console: Console) -> None:
    """Print a description: the layers, then the stages, the branches and what they cost.

    What is piped is as wide as it needs to be. A terminal of fewer than 110 columns does without the input shapes and
    channels, which the outputs show, and with rounded numbers.
    """
    width = console.width
    if not console.is_terminal:
        console.width = max(width, 250)
    try:
        tables = [_layer_table(description, narrow=console.width < 110), _stage_table(description)]
        if description.student:
            tables.append(_branch_table(description.student))
        for table in tables:
            console.print(table)
            console.print()
        for line in _sentences(description):
            console.print(line, markup=False, highlight=False)
    finally:
        console.width = width


def _layer_table(description: Description, *, narrow: bool) -> Table:
    student = description.student
    columns = ("Layer", "Input", "Input shape", "Filter", "Channels", "Str.", "Pad", "Output", "Block", *_COUNTS)
    kept = [place for place, column in enumerate(columns) if not (narrow and column in ("Input shape", "Channels"))]
    table = _table(*(columns[place] for place in kept))
    branch = 0
    for layer in (*description.layers, *(student.layers if student else ())):
        if layer.branch != branch:
            branch = layer.branch
            table.add_row(f"Branch {branch}", style="bold")
        counts = (layer.parameters, layer.multiply_adds)
        cells = (*layer.cells, *(_short(count) if narrow else f"{count:,}" if count else "-" for count in counts))
        table.add_row(*(cells[place] for place in kept))
    return table


def _stage_table(description: Description) -> Table:
    student = description.student
    beside = ["Student's stage", "Its feature"] if student else []
    table = _table("Stage", "Feature", "Closing norm", *beside)
    partner = dict(student.alignment) if student else {}
    for stage, (feature, norm) in enumerate(zip(description.features, description.closing_norms), 1):
        row = [str(stage), times(feature), "yes" if norm else "no"]
        if student:
            other = partner.get(stage)
            row += [str(other), times(student.features[other - 1])] if other else ["-", "-"]
        table.add_row(*row)
    return table


def _branch_table(student: Student) -> Table:
    table = _table("Branch", "Transform", "From", "To", "Runs", *_COUNTS)
    for branch in student.branches:
        after = f"{student.name} {branch.student_stage + 1}-{len(student.features)}"
        table.add_row(
            str(branch.number),
            _transform(branch),
            times(branch.source),
            times(branch.target),
            after,
            _short(branch.parameters),
            _short(branch.multiply_adds),
        )
    return table


def _sentences(description: Description) -> Iterator[str]:
    student = description.student
    yield _size_of(description.network, description.parameters, description.multiply_adds)
    if student:
        yield _size_of(student.name, student.parameters, student.multiply_adds)
        yield (
            f"A training step of {description.network} with the branches takes "
            f"{description.training_cost:.2f} times the multiply-adds of one without."
        )


def _size_of(name: str, parameters: int, multiply_adds: int) -> str:
    return f"{name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds an image."


def _transform(branch: GrownBranch) -> str:
    layer = branch.transform
    kind = "transposed " if layer.name.startswith("ConvTranspose") else ""
    window = f"stride {single(layer.stride)}, padding {single(layer.padding)}"
    return f"{'resize, ' if branch.resized else ''}{kind}{times(layer.kernel)}, {window}"


_COUNTS = ("Param.", "M-adds")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in _COUNTS else "left", overflow="fold")
    return table


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _short(count: int) -> str:
    """Three digits and a unit: 2.36M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count) if count else "-"
