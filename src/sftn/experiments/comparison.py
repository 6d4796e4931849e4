"""The result of a comparison: its table, what is to be doubted, and its verdicts, as text, Markdown, HTML and JSON."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from sftn.experiments.doubts import CellDoubts, Results
from sftn.experiments.statistics import gain, spread, together, verdict
from sftn.experiments.table import ALONE, BOTH, FRIENDLY, STANDARD, Cell, Row, Table
from sftn.runs.caveats import Record
from sftn.spec.run import FORMAT
from sftn.storage import escapes
from sftn.tasks import recipes

PARETO = "* no other student is as small or smaller and scores as high or higher"
"""What the mark in the last column of the table of sizes means."""


class Sized(NamedTuple):
    """A student at its best: its size, and what it loses against the best teacher."""

    student: str
    parameters: int
    accuracy: float
    """Mean over seeds, in percent, of the way and method that scored highest on the test images."""
    how: str
    """That way and method, in words."""
    below: float
    """Points below the best teacher."""
    front: bool
    """Whether no student with as few parameters or fewer scores as high: it is on the Pareto front."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, displayed as a table in a terminal or notebook."""

    title: str
    table: Table
    accuracies: dict[Cell, list[float]]
    """Test accuracy of the last epoch in percent, one value per seed."""
    best: dict[Cell, list[float]]
    """Test accuracy of the best epoch in percent, one value per seed."""
    seeds: tuple[int, ...] = ()
    folder: Path | None = None
    """The folder of comparison.md and comparison.json."""
    results: Results = field(default_factory=dict, repr=False)
    """The content of `result.json` by cell and seed."""
    within: float | None = None
    """Points below the best teacher that a student may be, if the smallest such student is asked for."""

    @cached_property
    def doubts(self) -> CellDoubts:
        """What is wrong with the networks behind the numbers."""
        return CellDoubts(self.results, {one.name: one.label for one in self.table.settings})

    @property
    def warnings(self) -> list[str]:
        """What readers must know before they believe the numbers, as sentences behind the marks of the table's cells:
        networks that collapsed or never recognise a class, teachers that scored below their student."""
        return self.doubts.footnotes

    def subtitle(self) -> str:
        """What the numbers mean, for the line below the title."""
        seeds = max(len(values) for values in self.accuracies.values())
        return f"test accuracy in %, last epoch, {f'mean ± std of {seeds} seeds' if seeds > 1 else 'one seed'}"

    def rows(self) -> list[tuple[str, ...]]:
        """The table's text, header first, with a row for each student and method, and marks that refer to `warnings`.

        Where the classes of the test half are unequal in size, balanced accuracy and the recall of the smallest
        classes stand below each accuracy.
        """
        header = ("standard teacher", "student-friendly teacher", "difference", *["both teachers"] * self._together)
        found: list[tuple[str, ...]] = [("", *(header if self._both else ("accuracy", "over the student alone")))]
        for label, row in self._rows():
            found.append((label, *self._numbers(row, self.accuracies, marks=True)))
            by_class = self.doubts.by_class(row.cells.values())
            found += [(f"  {label}", *self._numbers(row, values)) for label, values in by_class]
        return found

    def _numbers(self, row: Row, values: Mapping[Cell, Sequence[float]], *, marks: bool = False) -> tuple[str, ...]:
        """The cells of a row behind its label."""
        texts = {way: spread(values[cell]) + self.doubts.mark(cell) * marks for way, cell in row.cells.items()}
        if not self._both:
            (way, cell), *_ = row.cells.items()
            alone = values.get(Cell(cell.pair, "student", ALONE))
            if alone is None or way == ALONE or cell.role == "teacher":
                return (texts[way], "")
            return (texts[way], spread([taught - own for taught, own in zip(values[cell], alone)], sign=True))
        both = [texts.get(BOTH, "")] * self._together
        if ALONE in texts:
            return (texts[ALONE], "", "", *both)
        gaps = [f - s for s, f in zip(values[row.cells[STANDARD]], values[row.cells[FRIENDLY]])]
        return (texts[STANDARD], texts[FRIENDLY], spread(gaps, sign=True), *both)

    def _rows(self) -> Iterator[tuple[str, Row]]:
        """Rows with their labels; the teachers' rows come once, although every student's pair has them."""
        for number, pair in enumerate(self.table.pairs):
            for row in self.table.rows(pair):
                cell = list(row.cells.values())[-1]  # the one that knows its setting
                label = self.table.setting(cell.setting).label
                which = f", {label}" if label else ""
                if cell.role == "teacher":
                    if number == 0:
                        yield f"teacher {pair.teacher} itself{which}", row
                elif cell.way == ALONE:
                    yield f"student {pair.student} alone", row
                else:
                    yield f"student {pair.student} with {cell.method}{which}", row

    def verdict(self) -> list[str]:
        """One sentence on the outcome for each student, method and setting, whether gain or loss.

        If `within` is given, the last sentence names the smallest student that is so near to the best teacher.
        """
        found = []
        for pair in self.table.pairs:
            alone = self.accuracies[Cell(pair, "student", ALONE)]
            for method in self.table.methods:
                standard = self.accuracies[Cell(pair, "student", STANDARD, method)]
                who = f"With {recipes.title(method)}, {pair.student}"
                if not self._both:
                    found.append(gain(who, standard, alone, self.doubts.of(pair, method)))
                    continue
                for setting in self.table.settings:
                    friendly = self.accuracies[Cell(pair, "student", FRIENDLY, method, setting.name)]
                    which = f" ({setting.label})" if setting.label else ""
                    doubts = self.doubts.of(pair, method, setting.name)
                    found.append(verdict(who + which, standard, friendly, alone, doubts))
                    if self._together:
                        both = self.accuracies[Cell(pair, "student", BOTH, method, setting.name)]
                        doubts = self.doubts.of(pair, method, setting.name, (STANDARD, BOTH))
                        found.append(together(who + which, both, standard, doubts))
        return found if self.within is None else [*found, self._nearest(self.within)]

    @property
    def _both(self) -> bool:
        return FRIENDLY in self.table.teachers

    @property
    def _together(self) -> bool:
        return BOTH in self.table.teachers

    def sizes(self) -> list[Sized]:
        """The students by size; empty if there is one student and `within` is not given, or sizes are unknown.

        What is best is chosen on the test images, so it is a little too good.
        """
        known = all(self.results.get(Cell(pair, "student", ALONE)) for pair in self.table.pairs)
        if not known or (len(self.table.pairs) == 1 and self.within is None):
            return []
        means = {cell: fmean(values) for cell, values in self.accuracies.items()}
        teacher = max(mean for cell, mean in means.items() if cell.role == "teacher")
        found = []
        for pair in self.table.pairs:
            best = max((cell for cell in means if cell.pair == pair and cell.role == "student"), key=means.__getitem__)
            (result, *_) = self.results[Cell(pair, "student", ALONE)].values()
            found.append((pair.student, int(result["parameters"]), means[best], self._how(best)))
        return [
            Sized(*one, round(teacher - one[2], 2), not any(_beats(other, one) for other in found))
            for one in sorted(found, key=lambda one: (one[1], -one[2]))
        ]

    def _nearest(self, within: float) -> str:
        points = f"{within:g} point{'s' * (within != 1)}"
        care = " But see the warnings." if self.warnings else ""
        sizes = self.sizes()
        near = next((one for one in sizes if one.below <= within), None)
        if near is None:
            nearest = min(sizes, key=lambda one: one.below)
            return (
                f"No student is within {points} of the best teacher: {nearest.student} comes nearest, "
                f"{nearest.below:.2f} points below.{care}"
            )
        lost = (
            f"{abs(near.below):.2f} points {'below' if near.below > 0 else 'above'}" if near.below else "level with it"
        )
        return (
            f"The smallest student within {points} of the best teacher is {near.student} "
            f"({near.parameters:,} parameters): {lost}, {near.how}; chosen on the test images.{care}"
        )

    def _how(self, cell: Cell) -> str:
        if cell.way == ALONE:
            return "alone"
        label = self.table.setting(cell.setting).label
        ways = {STANDARD: "the standard teacher", FRIENDLY: "the student-friendly teacher", BOTH: "both teachers"}
        return f"with {cell.method} from {ways[cell.way]}{f' ({label})' if label else ''}"

    def record(self) -> dict[str, Any]:
        """The content of comparison.json."""
        rows: dict[tuple[str, ...], dict[str, Any]] = {}  # every student's pair has the teachers' cells
        for cell, values in self.accuracies.items():
            about = {"role": cell.role, "network": cell.network, "way": cell.way, "method": cell.method}
            about |= {"setting": cell.setting} if cell.setting else {}
            rows[tuple(about.values())] = about | {"accuracy": values, "best_accuracy": self.best[cell]}
            if cell in self.results:
                seen = [Record.of(result) for result in self.results[cell].values()]
                more = {"balanced_accuracy": [one.balanced for one in seen], "recall": [one.recall for one in seen]}
                rows[tuple(about.values())] |= more | {"collapsed": [one.collapsed for one in seen]}
        return {
            "format": FORMAT,
            "title": self.title,
            "seeds": list(self.seeds),
            "rows": list(rows.values()),
            "verdict": self.verdict(),
            "warnings": self.doubts.notes,
            "table": self.rows(),
            "footnotes": self.warnings,
            "subtitle": self.subtitle(),
            "sizes": [one._asdict() for one in self.sizes()],
        }

    def markdown(self) -> str:
        """The content of comparison.md."""
        table = _markdown(self.rows())
        if sizes := size_rows(self.sizes()):
            table += ["", *_markdown(sizes), "", PARETO]
        warnings = [line for warning in self.warnings for line in ("", f"> {escapes.markdown(warning)}")]
        said = map(escapes.markdown, self.verdict())
        return "\n".join(
            [f"**{escapes.markdown(self.title)}**", "", self.subtitle(), "", *table, *warnings, "", *said, ""]
        )

    def __str__(self) -> str:
        lines = _plain(self.rows())
        if sizes := size_rows(self.sizes()):
            lines += ["", *_plain(sizes), PARETO]
        return "\n".join([self.title, self.subtitle(), "", *lines, *self.warnings, "", *self.verdict()])

    def _repr_html_(self) -> str:
        """The table as HTML, for notebooks."""
        header, *rows = [[html.escape(cell) for cell in row] for row in self.rows()]
        head = "".join(f"<th>{cell}</th>" for cell in header)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        caption = f"<caption>{html.escape(self.title)}<br>{self.subtitle()}</caption>"
        said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in (*self.warnings, *self.verdict()))
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def size_rows(sizes: Sequence[Sized]) -> list[tuple[str, ...]]:
    """Students by size as text, header first; empty if there are none."""
    header = ("student", "parameters", "best", "how", "below the best teacher", "")
    rows = [
        (one.student, f"{one.parameters:,}", f"{one.accuracy:.2f}", one.how, f"{one.below:.2f}", "*" * one.front)
        for one in sizes
    ]
    return [header, *rows] if rows else []


def _beats(other: tuple[str, int, float, str], one: tuple[str, int, float, str]) -> bool:
    """Whether another student is no larger and scores no lower, and is not the same."""
    return other is not one and other[1] <= one[1] and other[2] >= one[2] and other[1:3] != one[1:3]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *others = ["| " + " | ".join(map(escapes.markdown, row)) + " |" for row in rows]
    return [header, "|---|" + "---:|" * (len(rows[0]) - 1), *others]


def _plain(rows: Sequence[Sequence[str]]) -> list[str]:
    first, *others = (max(map(len, column)) for column in zip(*rows))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others))]).rstrip()
        for row in rows
    ]
