"""Figures of measured tables, with means over seeds, drawn by `sftn.report.figures.analysis`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sftn.analysis import curves
from sftn.analysis.corruption import Robustness
from sftn.experiments.table import FRIENDLY, STANDARD, Cell, Pair
from sftn.report.document import Drawing
from sftn.report.figures import analysis as drawing
from sftn.report.figures.tables import available
from sftn.report.phrases import names

if TYPE_CHECKING:
    from sftn.experiments.measured_table import MeasuredSection
    from sftn.runs.folder import RunFolder

_WAYS = {STANDARD: "standard teacher", FRIENDLY: "student-friendly teacher"}


def draw(part: MeasuredSection, folder: Path, prefix: str) -> list[Drawing]:
    """Draw all figures of a section, as SVG and PNG files of the same name; none without matplotlib.

    Raises:
        InputError: the folder cannot be written.
    """
    return [
        Drawing(f"{caption}, {part.section.conditions}", drawing.save(figure, folder, f"{prefix}-{number}"))
        for number, (caption, figure) in enumerate(_figures(part) if available() else (), 1)
    ]


def _figures(part: MeasuredSection) -> Iterator[tuple[str, Any]]:
    if part.which.measure == "capacity":
        points = curves.points(_folders(part, part.section.table.pairs))
        if points:
            yield "Accuracy of teachers and of their student", drawing.capacity(points)
        return
    for pair in part.section.table.pairs:
        about = names(pair)
        if part.which.measure == "curves":
            folders = [folder for folder in _folders(part, [pair]) if folder.log.is_file()]
            if folders:
                drawn = [curves.curve(folder) for folder in folders]
                yield f"KL divergence in training and test accuracy, {about}", drawing.training(drawn)
        elif part.which.measure == "corruption":
            found = [one for one in (_robustness(part, pair, way) for way in _WAYS) if one is not None]
            if found:
                yield f"Accuracy under corruption, {about}", drawing.robustness(found)
        else:
            yield from _values(part, pair, about)


def _values(part: MeasuredSection, pair: Pair, about: str) -> Iterator[tuple[str, Any]]:
    """Figures of small tables: a row for each method and teacher, a panel for each quantity."""
    for role in ("teacher", "student"):
        quantities = {f"{q.source} {q.name}": q for q in part.quantities if q.role == role}
        rows = []
        for method in ("-",) if role == "teacher" else part.section.table.methods:
            for way, name in _WAYS.items():
                cell = Cell(pair, "teacher" if role == "teacher" else "student", way, method)
                means = {key: part.values(cell, quantity).mean for key, quantity in quantities.items()}
                if None not in means.values():
                    rows.append({"label": name if method == "-" else f"{method}, {name}", **means})
        columns = {key: quantity.label for key, quantity in quantities.items()}
        for begin in range(0, len(columns), 3) if rows else ():
            some = dict(list(columns.items())[begin : begin + 3])
            yield f"{role.capitalize()}s, {about}", drawing.values(rows, "label", some)


def _robustness(part: MeasuredSection, pair: Pair, way: str) -> Robustness | None:
    entries = part.section.entries.get(Cell(pair, "student", way, "kd"), {}).values()
    found = [part.readings.get(("corruption", entry.folder)) for entry in entries]
    known = [reading for reading in found if reading is not None]
    if not known or any(reading.settings != known[0].settings for reading in known):
        return None
    by_kind: dict[str, list[float]] = {}
    for kind in known[0].details["accuracy"]:
        by_kind[kind] = [fmean(values) for values in zip(*(reading.details["accuracy"][kind] for reading in known))]
    clean = fmean(float(reading.numbers["0"] or 0) for reading in known)
    return Robustness(f"{pair.student} from the {_WAYS[way]}", clean, by_kind)


def _folders(part: MeasuredSection, pairs: Any) -> list[RunFolder]:
    """Folders of the finished students that have a teacher."""
    cells = part.section.entries.items()
    some = [
        seeds.values() for cell, seeds in cells if cell.pair in pairs and cell.way in _WAYS and cell.role == "student"
    ]
    return [entry.folder for entries in some for entry in entries]
