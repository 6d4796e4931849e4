"""Measurements on the runs of a table, collected beside the printed numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftn.analysis import curves
from sftn.errors import InputError
from sftn.experiments.collect import Line, Section, Side, Spread, rows, sections
from sftn.experiments.deviations import remarks
from sftn.experiments.metrics import LOG, RESULT, Measured, Quantity, transfer_quantity
from sftn.experiments.paper.published import measured as printed_numbers
from sftn.experiments.table import ALONE, STANDARD, Cell, Pair, Row
from sftn.runs import measurements
from sftn.runs.folder import Entry, RunFolder


@dataclass(frozen=True)
class MeasuredSection:
    """A table under one set of conditions, with the measurements on its runs."""

    which: Measured
    section: Section
    quantities: tuple[Quantity, ...]
    readings: Mapping[tuple[str, RunFolder], measurements.Reading]
    """Readings by measurement and folder of the run."""
    faults: Sequence[str] = field(default_factory=tuple)
    """Error messages of unusable files."""

    def values(self, cell: Cell, quantity: Quantity) -> Spread:
        """A quantity of a cell, for every seed that has it."""
        return self.section.spread(cell, lambda entry: self._value(entry, quantity), quantity.digits)

    def _value(self, entry: Entry, quantity: Quantity) -> float | None:
        if quantity.source == RESULT:
            return (entry.result or {}).get(quantity.name)
        if quantity.source == LOG:
            return _of_log(entry.folder).get(quantity.name)
        reading = self.readings.get((quantity.source, entry.folder))
        return None if reading is None else reading.numbers.get(quantity.name)

    def lines(self, pair: Pair) -> Iterator[Line]:
        """The rows of a pair: the teachers, the student alone, then each method."""
        grid = self.which.grid
        for row in self.section.table.rows(pair):
            for quantity in self.quantities:
                if ALONE in row.cells:
                    if (quantity.source, quantity.role) == (RESULT, "student"):
                        yield self._line(f"{row.label}, accuracy, %", quantity, row)
                elif quantity.role == row.cells[STANDARD].role:
                    named = len(grid.settings) > 1 or (quantity.role == "student" and len(grid.methods) > 1)
                    yield self._line(f"{row.label}, {quantity.label}" if named else quantity.label, quantity, row)

    def _line(self, label: str, quantity: Quantity, row: Row) -> Line:
        printed = printed_numbers(self.which.grid.published)
        sides = {}
        for cell in row.cells.values():
            theirs = printed.get((cell, quantity.name)) if cell.role == "student" else None
            sides[cell.way] = Side(cell, self.values(cell, quantity), Spread(), theirs)
        return Line(label, sides)

    def gains(self) -> list[str]:
        """One sentence per student quantity: its mean gain over complete cells, ours and printed."""
        found = []
        for quantity in (one for one in self.quantities if one.role == "student"):
            ours, theirs = [], []
            listed = [row for pair in self.section.table.pairs for row in self.section.table.rows(pair)]
            for row in (row for row in listed if STANDARD in row.cells and row.cells[STANDARD].role == "student"):
                line = self._line(row.label, quantity, row)
                if line.gain is not None and line.gain.complete and line.gain.mean is not None:
                    ours.append(line.gain.mean)
                    theirs += [] if line.printed_gain is None else [line.printed_gain]
            text = f"{quantity.label}: no cell is complete yet"
            if ours:
                many = f"{len(ours)} cell{'s' * (len(ours) > 1)}"
                text = f"{quantity.label}: ours {statistics.fmean(ours):+.{quantity.digits}f} over {many}"
            if theirs:
                text += f", printed {statistics.fmean(theirs):+.{quantity.digits}f} over the same {len(theirs)}"
            if quantity.label in self.which.printed_gains:
                text += f", printed {self.which.printed_gains[quantity.label]:+.2f} on average"
            found.append(text)
        return found

    def warnings(self) -> list[str]:
        """Reasons not to compare these numbers directly with the printed ones; empty if there are none."""
        return [*self.section.warnings(), *self.remarks()]

    def remarks(self) -> list[str]:
        """How these numbers were measured differently from the paper's, and which are missing."""
        found: list[str] = []
        settings: dict[str, list[Mapping[str, Any]]] = {}
        for (name, _), reading in self.readings.items():
            if reading.settings not in settings.setdefault(name, []):
                settings[name].append(reading.settings)
        for name, several in settings.items():
            for one in several:
                differs = remarks(one, self.which.targets)
                if differs:
                    found.append(f"Not measured as in the paper ({name}): {'; '.join(differs)}.")
            if len(several) > 1:
                found.append(f"{name} was measured in {len(several)} different ways: these numbers must not be mixed.")
        known = {folder for _, folder in self.readings}
        missing = [entry for entry in _measured(self.which, self.section) if entry.folder not in known]
        if missing and self.section.conditions is not None and self.which.measure not in ("curves", "capacity"):
            many = f"{len(missing)} runs are" if len(missing) > 1 else "1 run is"
            found.append(f"{many} finished but not measured: continue with sftn reproduce {self.which.name}.")
        return [*found, *self.faults]

    def rows(self) -> list[dict[str, object]]:
        """Every number of every seed, as rows for CSV."""
        return [row for pair in self.section.table.pairs for row in rows(self.section, pair, self.lines(pair))]


def measured_sections(which: Measured, out: Path) -> list[MeasuredSection]:
    """Collect a table's measurements from a folder of runs, the conditions nearest to the paper's first.

    Raises:
        InputError: the folder does not exist.
    """
    return [measured_section(which, section) for section in sections(which.grid, out)]


def measured_section(which: Measured, section: Section) -> MeasuredSection:
    """Read the measurements on the runs of a section."""
    readings: dict[tuple[str, RunFolder], measurements.Reading] = {}
    faults = []
    for entry in _measured(which, section):
        for name in _names(which, entry.folder):
            try:
                reading = measurements.read(entry, name)
            except InputError as error:
                faults.append(str(error))
            else:
                if reading is not None:
                    readings[name, entry.folder] = reading
    return MeasuredSection(which, section, _quantities(which, readings), readings, faults)


def _measured(which: Measured, section: Section) -> list[Entry]:
    """The finished runs of a section that are to be measured."""
    cells = section.entries.items()
    entries = [seeds.values() for cell, seeds in cells if cell.role in which.roles and cell.way != ALONE]
    return list({entry.folder: entry for some in entries for entry in some}.values())


def _names(which: Measured, folder: RunFolder) -> list[str]:
    """The measurements that a run may have; transfer has one per data set."""
    if which.measure != "transfer":
        return [] if which.measure in ("curves", "capacity") else [which.measure]
    return [name for name in measurements.names(folder) if name.startswith("transfer-")]


def _quantities(
    which: Measured, readings: Mapping[tuple[str, RunFolder], measurements.Reading]
) -> tuple[Quantity, ...]:
    """The table's quantities; for transfer, those that were measured, if any."""
    if which.measure != "transfer" or not readings:
        return which.quantities
    targets = dict.fromkeys(name.removeprefix("transfer-") for name, _ in readings)
    return tuple(transfer_quantity(target) for target in targets)


def _of_log(folder: RunFolder) -> dict[str, float]:
    """Numbers from a run's log; empty if the log cannot be read."""
    try:
        curve = curves.curve(folder)
    except InputError:
        return {}
    kl = [value for value in curve.kl if value is not None]
    accuracy = [value for value in curve.accuracy if value is not None]
    found = {"kl, mean": statistics.fmean(kl), "kl, last": kl[-1]} if kl else {}
    return found | ({"accuracy": accuracy[-1]} if accuracy else {})
