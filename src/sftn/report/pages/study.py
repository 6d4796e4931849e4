"""The page of a study: standard and student-friendly teachers over seeds, and measurements on their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sftn.experiments import collect
from sftn.experiments.collect import Line, Section, Side, Spread, cost
from sftn.experiments.measured_table import MeasuredSection, measured_section
from sftn.experiments.statistics import p_value, said, verdict
from sftn.experiments.studies import Study
from sftn.experiments.studies.published import Published, published
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, TEACHERS, Cell, Pair, Row
from sftn.report.document import Block, Bullets, Heading, Page, Rows, Text
from sftn.report.figures import measured, tables
from sftn.report.phrases import heading, names
from sftn.runs.folder import Entry

LEGEND = (
    "Accuracies are in % on the test images after the last epoch: mean ± sample standard deviation over seeds. SFTN "
    "is the student-friendly teacher. The difference is SFTN minus standard, paired by seed: both start from the same "
    "weights and see the same batches. p is from a two-sided paired t-test, not corrected for the number of rows. "
    "Training accuracy and entropy (mean over the softmax outputs, nats) are on training images without augmentation."
)
_HEADER = ("", "standard teacher", "SFTN teacher", "difference", "seeds", "higher in", "p")
_PUBLISHED = ("", "published", "epoch", "ours, the same epoch", "ours − published", "protocol", "source")
_MEASURED = {
    "similarity": "Similarity of teacher and student on test images",
    "entropy": "Entropy and calibration of teachers and students",
    "corruption": "Accuracy on corrupted test images",
    "curves": "Training curves",
}
_TRAINED = (("accuracy", 2), ("entropy", 4))
"""Quantities on training images without augmentation, and the digits shown."""


@dataclass(frozen=True)
class _Part:
    """A study under one set of conditions."""

    section: Section
    measured: list[MeasuredSection]
    published: str = ""

    def lines(self, pair: Pair) -> Iterator[Line]:
        """The rows of a pair; a teacher's row is followed by its accuracy and entropy on training images."""
        for row, line in zip(self.section.table.rows(pair), self.section.lines(pair)):
            yield line
            if any(cell.role == "teacher" for cell in row.cells.values()):
                yield from self._trained(row)

    def _trained(self, row: Row) -> Iterator[Line]:
        for name, digits in _TRAINED:

            def value(entry: Entry, name: str = name) -> float | None:
                return ((entry.result or {}).get("train") or {}).get(name)

            spreads = {way: self.section.spread(cell, value, digits) for way, cell in row.cells.items()}
            sides = {way: Side(row.cells[way], one, Spread(), None) for way, one in spreads.items()}
            yield Line(f"{row.label}, training {name}", sides)

    def numbers(self) -> Iterator[dict[str, object]]:
        """Every number of every seed, including measurements, as rows for CSV."""
        for pair in self.section.table.pairs:
            for lines in (self.lines(pair), *(one.lines(pair) for one in self.measured)):
                yield from collect.rows(self.section, pair, lines)


def page(study: Study, found: Iterable[Section], folder: Path) -> Page:
    """The page of a study.

    Args:
        study: the study.
        found: its collected results.
        folder: the folder for the figures.
    """
    parts = [
        _Part(section, [measured_section(which, section) for which in study.measured], study.published)
        for section in found
    ]
    numbers = [row for part in parts for row in part.numbers()]
    return Page(heading(study.grid), list(_blocks(study, parts, folder)), folder, numbers)


def _blocks(study: Study, parts: Iterable[_Part], folder: Path) -> Iterator[Block]:
    yield from (Text(note) for note in study.grid.notes)
    yield Text(LEGEND, "note")
    yield Text(tables.missing(), "note")
    for number, part in enumerate(parts, 1):
        yield from _part(part, folder, f"figure{number}")


def _part(part: _Part, folder: Path, prefix: str) -> Iterator[Block]:
    section = part.section
    yield Heading(str(section.conditions or "Nothing run yet"))
    yield from (Text(warning, "warning") for warning in (*section.warnings(), *section.doubts.footnotes))
    for pair in section.table.pairs:
        yield Heading(names(pair), 3)
        yield Rows([_HEADER, *(_row(line, section.doubts.mark) for line in part.lines(pair))])
        sentences = list(_sentences(section, pair))
        if sentences:
            yield Bullets(sentences)
        beside = list(_beside(part, pair))
        if beside:
            yield Text("What others printed, with standard teachers:")
            yield Rows([_PUBLISHED, *beside])
    yield from tables.draw(section, folder, prefix)
    for one in part.measured:
        yield Heading(_MEASURED[one.which.measure])
        yield from (Text(remark, "warning") for remark in one.remarks())
        for pair in section.table.pairs:
            lines = [line for line in one.lines(pair) if any(side.last.values for side in line.sides.values())]
            if lines:
                yield Rows([_HEADER, *(_row(line) for line in lines)])
        yield Bullets([f"Mean difference over methods, {gain}." for gain in one.gains()])
        yield from measured.draw(one, folder, f"{prefix}-{one.which.measure}")
    if section.conditions is not None:
        yield Heading("Cost and origin")
        yield Bullets(cost(section.distinct()))


def _beside(part: _Part, pair: Pair) -> Iterator[tuple[str, ...]]:
    """Published numbers of a pair, each beside ours of the same epoch: the last one, unless the best was printed."""
    sides = {side.cell: (line.label, side) for line in part.section.lines(pair) for side in line.sides.values()}
    for found in published(part.published):
        if found.cell in sides:
            label, side = sides[found.cell]
            yield (label, *_compared(found, side.best if found.epoch == "best" else side.last))


def _compared(found: Published, ours: Spread) -> tuple[str, ...]:
    difference = "" if ours.mean is None else f"{ours.mean - found.accuracy:+.2f}"
    return str(found), found.epoch, ours.text(), difference, found.protocol, found.source


def _row(line: Line, mark: Callable[[Cell], str] = lambda cell: "") -> tuple[str, ...]:
    """The cells of a line; those that do not apply to one seed or to a student alone are empty.

    Args:
        line: the line.
        mark: what refers to a note on a cell's networks, behind its number.
    """
    if ALONE in line.sides:
        alone = line.sides[ALONE].last
        return (
            line.label,
            _marked(_cell(alone, len(alone.values)), line.sides[ALONE], mark),
            "",
            "",
            _seeds(alone),
            "",
            "",
        )
    gap = line.gain or Spread()
    gaps = list(gap.values.values())
    p = p_value(gaps)
    values = [_marked(_cell(side.last, len(gaps)), side, mark) for side in (line.sides[way] for way in TEACHERS)]
    higher = f"{sum(one > 0 for one in gaps)} of {len(gaps)}" if len(gaps) > 1 else ""
    return (line.label, *values, gap.bare(sign=True), _seeds(gap), higher, "" if p is None else _p(p))


def _marked(text: str, side: Side, mark: Callable[[Cell], str]) -> str:
    """An accuracy with what refers to a note on its networks; further measurements on them have none."""
    return text + mark(side.cell) if side.best.values else text


def _cell(found: Spread, seeds: int) -> str:
    """Mean and deviation, with the number of seeds if it differs from the line's."""
    return found.bare() if found.values and len(found.values) == seeds else found.text()


def _seeds(found: Spread) -> str:
    return str(found.of) if len(found.values) == found.of else f"{len(found.values)} of {found.of}"


def _p(value: float) -> str:
    return said(value, 3).removeprefix("= ")


def _sentences(section: Section, pair: Pair) -> Iterator[str]:
    """One sentence on the outcome for each student, whether gain or loss."""
    alone: dict[int, float] = {}
    for line in section.lines(pair):
        if ALONE in line.sides:
            alone = line.sides[ALONE].last.values
        elif line.sides[FRIENDLY].cell.role == "student":
            standard, friendly = (line.sides[way].last.values for way in (STANDARD, FRIENDLY))
            seeds = sorted(standard.keys() & friendly.keys())
            if seeds:
                ours, theirs = ([values[seed] for seed in seeds] for values in (friendly, standard))
                own = [alone[seed] for seed in seeds] if set(seeds) <= alone.keys() else []
                cell = line.sides[FRIENDLY].cell
                doubts = section.doubts.of(pair, cell.method, cell.setting)
                yield verdict(f"With {line.label}, {pair.student}", theirs, ours, own, doubts)
