"""The page of a table or figure of the paper: our results beside the printed ones, by conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sftn.experiments import table as table_cells
from sftn.experiments.collect import Line, Section, Side, Spread, cost
from sftn.experiments.measured_table import MeasuredSection
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Pair, Table
from sftn.report.document import Block, Bullets, Cell, Column, Comparison, Drawing, Heading, Page, Text
from sftn.report.figures import measured, tables
from sftn.report.phrases import gain_sentence, heading, names, printed_in

LEGEND = (
    "Test accuracy in %. Ours is the last epoch's, as the paper's: mean ± sample standard deviation (number of seeds); "
    "the best epoch's is shown separately and labelled. SFTN is the student-friendly teacher; the gain is SFTN minus "
    "standard, ours paired by seed."
)
MEASURED_LEGEND = (
    "Ours: mean ± sample standard deviation (number of seeds). SFTN is the student-friendly teacher; the gain is SFTN "
    "minus standard, ours paired by seed. A cell without a number was not run or not measured."
)
_WAYS = {"standard": "standard teacher", "SFTN": "student-friendly teacher (SFTN)"}
COLUMNS = (
    *(
        Column(group, name, label.format(way), brief=name == "ours")
        for way, group in _WAYS.items()
        for name, label in (("ours", "{}, ours"), ("printed", "{}, printed"), ("ours − printed", "ours − printed"))
    ),
    Column("gain", "ours", "gain", brief=True),
    Column("gain", "printed", "gain, printed", brief=True),
)


def page(found: Sequence[Section], folder: Path) -> Page:
    """The page of a table of accuracies, with a section for each set of conditions."""
    blocks: list[Block] = []
    for number, section in enumerate(found, 1):
        drawings = tables.draw(section, folder, f"figure{number}")
        gains = [Text(gain_sentence(section))]
        blocks += _section(section, section.warnings(), gains, section.lines, drawings)
    return _page(found[0].table, LEGEND, blocks, folder)


def measured_page(found: Sequence[MeasuredSection], folder: Path) -> Page:
    """The page of a table or figure with further measurements on its runs, with numbers for CSV."""
    blocks: list[Block] = []
    for number, part in enumerate(found, 1):
        drawings = measured.draw(part, folder, f"figure{number}")
        gains: list[Block] = [Text("Mean gain of SFTN over the standard teacher:"), Bullets(part.gains())]
        blocks += _section(part.section, part.warnings(), gains, part.lines, drawings)
    numbers = [row for part in found for row in part.rows()]
    return _page(found[0].which.grid, MEASURED_LEGEND, blocks, folder, numbers)


def _page(
    table: Table, legend: str, blocks: Sequence[Block], folder: Path, numbers: Sequence[dict[str, object]] = ()
) -> Page:
    notes = [printed_in(table), legend, *(f"Note: {note}" for note in table.notes), tables.missing()]
    return Page(heading(table), [*(Text(note, "note") for note in notes), *blocks], folder, numbers)


def _section(
    section: Section,
    warnings: Iterable[str],
    gains: Iterable[Block],
    lines: Callable[[Pair], Iterable[Line]],
    drawings: Iterable[Drawing],
) -> Iterator[Block]:
    """The blocks of a table under one set of conditions."""
    yield Heading(str(section.conditions or "Nothing run yet"))
    yield from (Text(warning, "warning") for warning in (*warnings, *section.doubts.footnotes))
    yield from gains
    for pair in section.table.pairs:
        yield Heading(names(pair), 3)
        yield Comparison(COLUMNS, [(line.label, _cells(line, section.doubts.mark)) for line in lines(pair)])
    yield from drawings
    if section.conditions is not None:
        yield Heading("Cost and origin", 3)
        yield Bullets(cost(section.distinct()))


def _cells(line: Line, mark: Callable[[table_cells.Cell], str]) -> list[Cell]:
    """The cells of `COLUMNS`; a network without a teacher is shown in the columns of the standard one."""
    gain, printed = line.gain, line.printed_gain
    return [
        *(
            _side(line.sides[ALONE], mark, "no teacher")
            if ALONE in line.sides
            else _side(line.sides.get(STANDARD), mark)
        ),
        *_side(line.sides.get(FRIENDLY), mark),
        Cell("") if gain is None else _spread(gain, sign=True),
        Cell("" if printed is None else f"{printed:+.2f}"),
    ]


def _side(side: Side | None, mark: Callable[[table_cells.Cell], str], way: str = "") -> list[Cell]:
    """The cells ours, printed and difference; `way` replaces the column's label if given."""
    if side is None:
        return [Cell("")] * 3
    difference = "" if side.difference is None else f"{side.difference:+.{side.last.digits}f}"
    best = f"best epoch {side.best.text()}" if side.best.values else ""
    ours, printed = (f"{way}, {name}" if way else "" for name in ("ours", "printed"))
    return [
        replace(_spread(side.last, mark=mark(side.cell)), below=best, label=ours),
        Cell("" if side.printed is None else str(side.printed), label=printed),
        Cell(difference),
    ]


def _spread(spread: Spread, *, sign: bool = False, mark: str = "") -> Cell:
    kind = "" if spread.complete else "partial" if spread.values else "missing"
    mark *= bool(spread.values)
    return Cell(spread.text(sign) + mark, kind, spread.text(sign, count=False) + mark)
