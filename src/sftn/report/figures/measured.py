"""The figures of measured tables, of the means over seeds; drawn by `sftn.report.figures.analysis`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sftn.analysis import curves
from sftn.analysis.corruption import Robustness
from sftn.experiments.table import FRIENDLY, STANDARD, Cell, Pair
from sftn.report.figures import analysis as drawing

if TYPE_CHECKING:
    from sftn.experiments.measured_table import Page
    from sftn.runs.folder import RunFolder

_WAYS = {STANDARD: "standard teacher", FRIENDLY: "student-friendly teacher"}


def draw(page: Page, folder: Path, prefix: str) -> list[tuple[str, Path]]:
    """All figures of a page, as (caption, SVG file); a PNG of the same name lies beside each.

    Raises:
        InputError: the folder cannot be written.
    """
    found = []
    for number, (caption, figure) in enumerate(_figures(page), 1):
        path, _ = drawing.save(figure, folder, f"{prefix}-{number}")
        found.append((f"{caption}, {page.section.conditions}", path))
    return found


def _figures(page: Page) -> Iterator[tuple[str, Any]]:
    if page.which.measure == "capacity":
        points = curves.points(_folders(page, page.section.table.pairs))
        if points:
            yield "Accuracy of teachers and of their student", drawing.capacity(points)
        return
    for pair in page.section.table.pairs:
        about = f"{pair.teacher} → {pair.student}"
        if page.which.measure == "curves":
            folders = [folder for folder in _folders(page, [pair]) if folder.log.is_file()]
            if folders:
                drawn = [curves.curve(folder) for folder in folders]
                yield f"KL divergence in training and test accuracy, {about}", drawing.training(drawn)
        elif page.which.measure == "corruption":
            found = [one for one in (_robustness(page, pair, way) for way in _WAYS) if one is not None]
            if found:
                yield f"Accuracy under corruption, {about}", drawing.robustness(found)
        else:
            yield from _values(page, pair, about)


def _values(page: Page, pair: Pair, about: str) -> Iterator[tuple[str, Any]]:
    """Small tables as marks: a row a method and teacher, a panel a quantity."""
    for role in ("teacher", "student"):
        quantities = {f"{q.source} {q.name}": q for q in page.quantities if q.role == role}
        rows = []
        for method in ("-",) if role == "teacher" else page.section.table.methods:
            for way, name in _WAYS.items():
                cell = Cell(pair, "teacher" if role == "teacher" else "student", way, method)
                means = {key: page.values(cell, quantity).mean for key, quantity in quantities.items()}
                if None not in means.values():
                    rows.append({"label": name if method == "-" else f"{method}, {name}", **means})
        columns = {key: quantity.label for key, quantity in quantities.items()}
        for begin in range(0, len(columns), 3) if rows else ():
            some = dict(list(columns.items())[begin : begin + 3])
            yield f"{role.capitalize()}s, {about}", drawing.values(rows, "label", some)


def _robustness(page: Page, pair: Pair, way: str) -> Robustness | None:
    entries = page.section.entries.get(Cell(pair, "student", way, "kd"), {}).values()
    found = [page.readings.get(("corruption", entry.folder)) for entry in entries]
    known = [reading for reading in found if reading is not None]
    if not known or any(reading.settings != known[0].settings for reading in known):
        return None
    by_kind: dict[str, list[float]] = {}
    for kind in known[0].details["accuracy"]:
        by_kind[kind] = [fmean(values) for values in zip(*(reading.details["accuracy"][kind] for reading in known))]
    clean = fmean(float(reading.numbers["0"] or 0) for reading in known)
    return Robustness(f"{pair.student} from the {_WAYS[way]}", clean, by_kind)


def _folders(page: Page, pairs: Any) -> list[RunFolder]:
    """Of the finished students with a teacher."""
    cells = page.section.entries.items()
    some = [
        seeds.values() for cell, seeds in cells if cell.pair in pairs and cell.way in _WAYS and cell.role == "student"
    ]
    return [entry.folder for entries in some for entry in entries]
