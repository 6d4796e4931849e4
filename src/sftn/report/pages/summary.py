"""The page of `sftn describe`: a network's layers and stages, and the branches that a student adds."""

from __future__ import annotations

from collections.abc import Iterator

from sftn.profiling.layers import single, times
from sftn.profiling.summary import Description, GrownBranch, Student
from sftn.report.document import Block, Page, Rows, Text

_COUNTS = ("Param.", "M-adds")
_LEFT_OUT = ("Input shape", "Channels")
WIDE = 110
"""Width of a terminal that fits all columns."""


def page(description: Description, *, narrow: bool = False) -> Page:
    """The page of a described network: layers, stages, branches and their cost.

    Args:
        description: the result of `sftn.profiling.summary.describe`.
        narrow: for terminals narrower than `WIDE`: omit input shapes and channels, which the outputs show, and round
            numbers.
    """
    student = f" with the branches of {description.student.name}" if description.student else ""
    title = f"{description.network}{student}, for images of {times(description.image)}"
    return Page(title, list(_blocks(description, narrow)))


def _blocks(description: Description, narrow: bool) -> Iterator[Block]:
    student = description.student
    yield _layers(description, narrow)
    yield _stages(description)
    if student:
        yield _branches(student)
    yield Text(_size(description.network, description.parameters, description.multiply_adds))
    if student:
        yield Text(_size(student.name, student.parameters, student.multiply_adds))
        yield Text(
            f"A training step of {description.network} with the branches takes "
            f"{description.training_cost:.2f} times the multiply-adds of one without."
        )


def _layers(description: Description, narrow: bool) -> Rows:
    student = description.student
    columns = ("Layer", "Input", "Input shape", "Filter", "Channels", "Str.", "Pad", "Output", "Block", *_COUNTS)
    rows: list[tuple[str, ...]] = [columns]
    branch = 0
    for layer in (*description.layers, *(student.layers if student else ())):
        if layer.branch != branch:
            branch = layer.branch
            rows.append((f"Branch {branch}", *[""] * (len(columns) - 1)))
        counts = (layer.parameters, layer.multiply_adds)
        rows.append((*layer.cells, *(_short(count) if narrow else f"{count:,}" if count else "-" for count in counts)))
    kept = [place for place, column in enumerate(columns) if not (narrow and column in _LEFT_OUT)]
    return Rows([[row[place] for place in kept] for row in rows], len(kept) - len(_COUNTS))


def _stages(description: Description) -> Rows:
    student = description.student
    rows = [["Stage", "Feature", "Closing norm", *(["Student's stage", "Its feature"] if student else [])]]
    partner = dict(student.alignment) if student else {}
    for stage, (feature, norm) in enumerate(zip(description.features, description.closing_norms), 1):
        row = [str(stage), times(feature), "yes" if norm else "no"]
        if student:
            other = partner.get(stage)
            row += [str(other), times(student.features[other - 1])] if other else ["-", "-"]
        rows.append(row)
    return Rows(rows, len(rows[0]))


def _branches(student: Student) -> Rows:
    columns = ("Branch", "Transform", "From", "To", "Runs")
    rows: list[tuple[str, ...]] = [(*columns, *_COUNTS)]
    for branch in student.branches:
        shapes = (times(branch.source), times(branch.target))
        runs = f"{student.name} {branch.student_stage + 1}-{len(student.features)}"
        counts = (_short(branch.parameters), _short(branch.multiply_adds))
        rows.append((str(branch.number), _transform(branch), *shapes, runs, *counts))
    return Rows(rows, len(columns))


def _size(name: str, parameters: int, multiply_adds: int) -> str:
    return f"{name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds per image."


def _transform(branch: GrownBranch) -> str:
    layer = branch.transform
    kind = "transposed " if layer.name.startswith("ConvTranspose") else ""
    window = f"stride {single(layer.stride)}, padding {single(layer.padding)}"
    return f"{'resize, ' if branch.resized else ''}{kind}{times(layer.kernel)}, {window}"


def _short(count: int) -> str:
    """A count with three digits and a unit, such as 2.36M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count) if count else "-"
