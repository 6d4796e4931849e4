"""What runs say about a table: every cell with the seeds that are there, under one set of conditions at a time."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftn.paper.grid import TINY, Conditions, smoke
from sftn.paper.published import Printed, accuracies
from sftn.paper.table import FRIENDLY, STANDARD, Cell, Pair, Row, Table
from sftn.runs import DONE, Entry, scan


@dataclass(frozen=True)
class Spread:
    """Values of some seeds, by seed, and how many there should be."""

    values: dict[int, float] = field(default_factory=dict)
    of: int = 3
    digits: int = 2
    """After the decimal point."""

    @property
    def mean(self) -> float | None:
        """None if there is nothing."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Of the sample; None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def complete(self) -> bool:
        """Whether every seed is there."""
        return len(self.values) >= self.of

    def text(self, sign: bool = False, count: bool = True) -> str:
        """`76.09 ± 0.31 (3)`; a half-filled set says so, and an empty one is `not run`.

        Args:
            sign: with a plus.
            count: say the number of seeds even where the set is complete.
        """
        if self.mean is None:
            return "not run"
        many = f" ({len(self.values)} of {self.of} seeds)" if not self.complete else f" ({self.of})" if count else ""
        deviation = "" if self.std is None else f" ± {self.std:.{self.digits}f}"
        return f"{self.mean:{'+' if sign else ''}.{self.digits}f}{deviation}{many}"

    def minus(self, other: Spread) -> Spread:
        """Differences seed by seed, of the seeds that both have."""
        both = {seed: value - other.values[seed] for seed, value in self.values.items() if seed in other.values}
        return Spread(both, self.of, self.digits)


@dataclass(frozen=True)
class Side:
    """A cell: ours and theirs."""

    cell: Cell
    last: Spread
    """Accuracy of the last epoch, in percent: what the paper reports."""
    best: Spread
    """Of the best epoch."""
    printed: Printed | None

    @property
    def difference(self) -> float | None:
        """Ours minus theirs."""
        return None if self.last.mean is None or self.printed is None else self.last.mean - self.printed.mean


@dataclass(frozen=True)
class Line:
    """A row of a pair."""

    label: str
    sides: dict[str, Side]

    @property
    def gain(self) -> Spread | None:
        """Of the student-friendly teacher over the standard one, ours; None where the row has no such thing."""
        if FRIENDLY not in self.sides:
            return None
        return self.sides[FRIENDLY].last.minus(self.sides[STANDARD].last)

    @property
    def printed_gain(self) -> float | None:
        """The same as printed."""
        if FRIENDLY not in self.sides:
            return None
        ours, theirs = self.sides[FRIENDLY].printed, self.sides[STANDARD].printed
        return None if ours is None or theirs is None else ours.mean - theirs.mean


@dataclass(frozen=True)
class Section:
    """A table under one set of conditions; None of them if nothing has been run."""

    table: Table
    conditions: Conditions | None
    seeds: int
    entries: dict[Cell, dict[int, Entry]]

    @property
    def tiny(self) -> bool:
        """Whether this is a smoke test."""
        return self.table.pairs == (TINY,)

    def warnings(self) -> list[str]:
        """Why these numbers must not be compared with the printed ones as they are; empty if they may."""
        if self.conditions is None:
            return ["Nothing of this table has been run."]
        found = ["a SMOKE TEST: a tiny pair stands in for those of the paper"] if self.tiny else []
        found += self.conditions.deviations(self.table.data, self.table.recipe)
        cells = [cell for pair in self.table.pairs for cell in self.table.cells(pair)]
        missing = sum(not self.entries.get(cell) for cell in cells)
        partial = sum(0 < len(self.entries.get(cell, {})) < self.seeds for cell in cells)
        warnings = [f"Not the paper's conditions: {'; '.join(found)}."] if found else []
        if missing:
            warnings.append(f"{missing} of {len(cells)} cells are not run.")
        if partial:
            warnings.append(f"{partial} of {len(cells)} cells have only some of their {self.seeds} seeds.")
        return warnings

    def lines(self, pair: Pair) -> Iterator[Line]:
        """The rows of a pair, ours and theirs."""
        for row in self.table.rows(pair):
            yield self._line(row)

    def _line(self, row: Row) -> Line:
        return Line(row.label, {way: self._side(cell) for way, cell in row.cells.items()})

    def _side(self, cell: Cell) -> Side:
        seen = {seed: entry.result or {} for seed, entry in sorted(self.entries.get(cell, {}).items())}
        last = Spread({seed: record["accuracy"] for seed, record in seen.items()}, self.seeds)
        best = Spread(
            {seed: record.get("best_accuracy", record["accuracy"]) for seed, record in seen.items()}, self.seeds
        )
        return Side(cell, last, best, accuracies(self.table.published).get(cell))

    def gains(self) -> tuple[list[float], list[float]]:
        """Gains over the standard teacher of the students whose seeds are complete: ours, and theirs of the same."""
        lines = [line for pair in self.table.pairs for line in self.lines(pair)]
        lines = [line for line in lines if line.gain is not None and line.sides[STANDARD].cell.role == "student"]
        pairs = [(line.gain, line.printed_gain) for line in lines if line.gain is not None and line.gain.complete]
        ours = [gain.mean for gain, _ in pairs if gain.mean is not None]
        return ours, [printed for _, printed in pairs if printed is not None]

    def distinct(self) -> list[Entry]:
        """The finished runs behind it, each once."""
        return list({entry.folder: entry for seeds in self.entries.values() for entry in seeds.values()}.values())


def sections(table: Table, out: Path) -> list[Section]:
    """What a folder of runs says about a table, the conditions nearest to the paper's first.

    Raises:
        InputError: the folder is not there.
    """
    done = {entry.run.id: entry for entry in scan(out) if entry.state == DONE and entry.run is not None}
    runs = [entry.run for entry in done.values() if entry.run is not None]
    found = []
    for conditions in dict.fromkeys(Conditions.of(run) for run in runs):
        most = 1 + max(run.seed for run in runs if Conditions.of(run) == conditions)
        for variant, seeds in ((table, max(table.seeds, most)), (smoke(table), most)):
            section = Section(variant, conditions, seeds, _entries(variant, conditions, seeds, done))
            if any(cell.method != "-" and entries for cell, entries in section.entries.items()):
                found.append(section)
    found.sort(key=lambda section: (section.tiny, _far(section), -len(section.distinct())))
    return found or [Section(table, None, table.seeds, {})]


def _entries(table: Table, conditions: Conditions, seeds: int, done: dict[str, Entry]) -> dict[Cell, dict[int, Entry]]:
    found: dict[Cell, dict[int, Entry]] = {}
    for pair in table.pairs:
        for cell in table.cells(pair):
            for seed in range(seeds):
                entry = done.get(conditions.run(table, cell, seed).id)
                if entry is not None:
                    found.setdefault(cell, {})[seed] = entry
    return found


def _far(section: Section) -> int:
    return (
        0
        if section.conditions is None
        else len(section.conditions.deviations(section.table.data, section.table.recipe))
    )


def cost(entries: Sequence[Entry]) -> list[str]:
    """What runs took and on what, a line a machine and version."""
    by: dict[tuple[str, ...], list[float]] = {}
    for entry in entries:
        record = entry.result or {}
        about: dict[str, Any] = record.get("environment") or {}
        names = ("device", "threads", "system", "sftn", "commit", "torch", "python")
        by.setdefault(tuple(str(about.get(name)) for name in names), []).append(float(record.get("seconds", 0)))
    lines = []
    for (device, threads, system, version, commit, torch, python), seconds in sorted(by.items()):
        hours = sum(seconds) / 3600
        took = f"{hours:.1f} hours" if hours >= 1 else f"{sum(seconds) / 60:.1f} minutes"
        lines.append(
            f"{len(seconds)} run{'s' * (len(seconds) > 1)}, {took} of training on {device}, "
            f"{threads} thread{'s' * (threads != '1')}, {system}; "
            f"sftn {version} (commit {commit[:12]}), torch {torch}, Python {python}"
        )
    return [*lines, "Energy: not read."]
