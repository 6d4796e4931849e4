"""Results of finished runs, collected into a table's cells, separately for each set of conditions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sftn.experiments.doubts import CellDoubts
from sftn.experiments.grid import TINY, Conditions, smoke
from sftn.experiments.paper.published import Printed, accuracies
from sftn.experiments.table import FRIENDLY, STANDARD, Cell, Pair, Row, Table
from sftn.runs.folder import DONE, Entry, scan


@dataclass(frozen=True)
class Spread:
    """Values by seed, and the number of seeds that are expected."""

    values: dict[int, float] = field(default_factory=dict)
    of: int = 3
    digits: int = 2
    """Digits after the decimal point."""

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without values."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def complete(self) -> bool:
        """Whether all expected seeds have values."""
        return len(self.values) >= self.of

    def text(self, sign: bool = False, count: bool = True) -> str:
        """Mean, deviation and seeds, such as `76.09 ± 0.31 (3)`; `(2 of 3 seeds)` if incomplete, `not run` if empty.

        Args:
            sign: whether positive values get a plus sign.
            count: whether a complete set of several seeds shows their number as well.
        """
        many = f" ({self.of})" if count and self.of > 1 else ""
        many = many if self.complete else f" ({len(self.values)} of {self.of} seeds)"
        return "not run" if self.mean is None else self.bare(sign) + many

    def bare(self, sign: bool = False) -> str:
        """Mean and deviation without the number of seeds, such as `76.09 ± 0.31`; empty without values."""
        deviation = "" if self.std is None else f" ± {self.std:.{self.digits}f}"
        return "" if self.mean is None else f"{self.mean:{'+' if sign else ''}.{self.digits}f}{deviation}"

    def minus(self, other: Spread) -> Spread:
        """Differences for the seeds that both have."""
        both = {seed: value - other.values[seed] for seed, value in self.values.items() if seed in other.values}
        return Spread(both, self.of, self.digits)


@dataclass(frozen=True)
class Side:
    """Our result and the printed number of a cell."""

    cell: Cell
    last: Spread
    """Accuracy of the last epoch in percent, as the paper reports."""
    best: Spread
    """Accuracy of the best epoch in percent."""
    printed: Printed | None

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed number; None if either is missing."""
        return None if self.last.mean is None or self.printed is None else self.last.mean - self.printed.mean


@dataclass(frozen=True)
class Line:
    """A row of a pair's table: a label, and a side for each kind of teacher."""

    label: str
    sides: dict[str, Side]

    @property
    def gain(self) -> Spread | None:
        """Our gain of the student-friendly over the standard teacher; None for a row without them."""
        if FRIENDLY not in self.sides:
            return None
        return self.sides[FRIENDLY].last.minus(self.sides[STANDARD].last)

    @property
    def printed_gain(self) -> float | None:
        """The printed gain; None if it is not printed."""
        if FRIENDLY not in self.sides:
            return None
        ours, theirs = self.sides[FRIENDLY].printed, self.sides[STANDARD].printed
        return None if ours is None or theirs is None else ours.mean - theirs.mean


@dataclass(frozen=True)
class Section:
    """Results of a table under one set of conditions, which is None if nothing has been run."""

    table: Table
    conditions: Conditions | None
    seeds: int
    entries: dict[Cell, dict[int, Entry]]

    @cached_property
    def doubts(self) -> CellDoubts:
        """What is wrong with the networks behind the numbers."""
        results = {
            cell: {seed: entry.result for seed, entry in sorted(seeds.items()) if entry.result is not None}
            for cell, seeds in self.entries.items()
        }
        settings = {setting.name: setting.label for setting in self.table.settings}
        return CellDoubts({cell: seeds for cell, seeds in results.items() if seeds}, settings)

    @property
    def tiny(self) -> bool:
        """Whether this is a smoke test."""
        return self.table.pairs == (TINY,)

    @property
    def own(self) -> bool:
        """Whether these are the table's own pairs and conditions."""
        return not self.tiny and not _far(self)

    def warnings(self) -> list[str]:
        """Reasons not to compare these numbers directly with the printed ones; empty if there are none."""
        if self.conditions is None:
            return [f"No run of this {'study' if self.table.source == 'study' else 'table'} is finished."]
        found = ["a SMOKE TEST: a tiny pair stands in for those of the paper"] if self.tiny else []
        found += self.conditions.deviations(self.table)
        cells = [cell for pair in self.table.pairs for cell in self.table.cells(pair)]
        missing = sum(not self.entries.get(cell) for cell in cells)
        partial = sum(0 < len(self.entries.get(cell, {})) < self.seeds for cell in cells)
        warnings = [f"Not the {self.table.source}'s conditions: {'; '.join(found)}."] if found else []
        if missing:
            warnings.append(f"{missing} of {len(cells)} cells have no finished run.")
        if partial:
            warnings.append(f"{partial} of {len(cells)} cells have only some of their {self.seeds} seeds.")
        return warnings

    def lines(self, pair: Pair) -> Iterator[Line]:
        """The rows of a pair, with our results and the printed numbers."""
        for row in self.table.rows(pair):
            yield self._line(row)

    def _line(self, row: Row) -> Line:
        return Line(row.label, {way: self._side(cell) for way, cell in row.cells.items()})

    def _side(self, cell: Cell) -> Side:
        last = self.spread(cell, lambda entry: (entry.result or {}).get("accuracy"))
        best = self.spread(cell, lambda entry: (entry.result or {}).get("best_accuracy"))
        best = Spread(last.values | best.values, self.seeds)  # not every result has one
        return Side(cell, last, best, accuracies(self.table.published).get(cell))

    def spread(self, cell: Cell, value: Callable[[Entry], float | None], digits: int = 2) -> Spread:
        """A number of a cell, of every seed that has it."""
        seen = {seed: value(entry) for seed, entry in sorted(self.entries.get(cell, {}).items())}
        return Spread({seed: float(one) for seed, one in seen.items() if one is not None}, self.seeds, digits)

    def gains(self) -> tuple[list[float], list[float]]:
        """Gains over the standard teacher of all students with complete seeds: ours, and the printed ones."""
        lines = [line for pair in self.table.pairs for line in self.lines(pair)]
        lines = [line for line in lines if line.gain is not None and line.sides[STANDARD].cell.role == "student"]
        pairs = [(line.gain, line.printed_gain) for line in lines if line.gain is not None and line.gain.complete]
        ours = [gain.mean for gain, _ in pairs if gain.mean is not None]
        return ours, [printed for _, printed in pairs if printed is not None]

    def distinct(self) -> list[Entry]:
        """The finished runs of this section, each once."""
        return list({entry.folder: entry for seeds in self.entries.values() for entry in seeds.values()}.values())


def sections(table: Table, out: Path) -> list[Section]:
    """Collect a table's results from a folder of runs, one section per set of conditions, its own or the nearest first.

    For a study only the section under its own conditions counts, or the nearest one if there is none, because other
    studies may share its pairs.

    Raises:
        InputError: the folder does not exist.
    """
    done = {entry.run.id: entry for entry in scan(out) if entry.state == DONE and entry.run is not None}
    runs = [entry.run for entry in done.values() if entry.run is not None]
    found = []
    for conditions in dict.fromkeys(Conditions.of(run) for run in runs):
        seeds = sorted({run.seed for run in runs if Conditions.of(run) == conditions})
        for variant, least in ((table, table.seeds), (smoke(table), 0)):
            entries = _entries(variant, conditions, seeds, done)
            if any(cell.method != "-" for cell in entries):
                most = 1 + max(seed for some in entries.values() for seed in some)
                found.append(Section(variant, conditions, max(least, most), entries))
    found.sort(key=lambda section: (section.tiny, _far(section), -len(section.distinct())))
    if table.source == "study":
        found = [section for section in found if section.own] or found[:1]
    return found or [Section(table, None, table.seeds, {})]


def _entries(
    table: Table, conditions: Conditions, seeds: Sequence[int], done: dict[str, Entry]
) -> dict[Cell, dict[int, Entry]]:
    found: dict[Cell, dict[int, Entry]] = {}
    for pair in table.pairs:
        for cell in table.cells(pair):
            for seed in seeds:
                entry = done.get(conditions.run(table, cell, seed).id)
                if entry is not None:
                    found.setdefault(cell, {})[seed] = entry
    return found


def _far(section: Section) -> int:
    return 0 if section.conditions is None else len(section.conditions.deviations(section.table))


def rows(section: Section, pair: Pair, lines: Iterable[Line]) -> Iterator[dict[str, object]]:
    """Every number of every seed in the given lines of a pair, as rows for CSV."""
    for line in lines:
        for way, side in line.sides.items():
            about = {"conditions": str(section.conditions), "teacher": pair.teacher, "student": pair.student}
            about |= {"quantity": line.label, "teacher_training": way}
            printed = None if side.printed is None else side.printed.mean
            seeds: Mapping[Any, Any] = side.last.values or {None: None}
            yield from (about | {"seed": seed, "value": value, "printed": printed} for seed, value in seeds.items())


def cost(entries: Sequence[Entry]) -> list[str]:
    """Training time and environment of runs, one line per machine and version."""
    by: dict[tuple[str, ...], list[float]] = {}
    for entry in entries:
        record = entry.result or {}
        about: dict[str, Any] = record.get("environment") or {}
        names = ("device", "threads", "system", "sftn", "commit", "torch", "python")
        more = (str(about.get("cpu") or ""), ", with changes" * bool(about.get("changed")))
        by.setdefault((*(str(about.get(name)) for name in names), *more), []).append(float(record.get("seconds", 0)))
    lines = []
    for (device, threads, system, version, commit, torch, python, cpu, changed), seconds in sorted(by.items()):
        hours = sum(seconds) / 3600
        took = f"{hours:.1f} hours" if hours >= 1 else f"{sum(seconds) / 60:.1f} minutes"
        lines.append(
            f"{len(seconds)} run{'s' * (len(seconds) > 1)}, {took} of training on {device}, {cpu and cpu + ', '}"
            f"{threads} thread{'s' * (threads != '1')}, {system}; "
            f"sftn {version} (commit {commit[:12]}{changed}), torch {torch}, Python {python}"
        )
    return [*lines, "Energy: not measured."]
