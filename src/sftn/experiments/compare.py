"""Comparisons over seeds: a student alone, with a standard teacher and with a student-friendly one.

A comparison is a table made from options: `plan` creates it, `sftn.experiments.queue` trains its runs, and `collected`
puts the results together.
"""

from __future__ import annotations

import hashlib
import html
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.doubts import CellDoubts, Results
from sftn.experiments.forecast import forecast
from sftn.experiments.grid import Conditions, Planned, grid, seed_values
from sftn.experiments.queue import work
from sftn.experiments.statistics import spread, verdict
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair, Row, Setting, Table
from sftn.networks import check_name
from sftn.runs import requests
from sftn.runs.build import check
from sftn.runs.caveats import Record
from sftn.runs.folder import RunFolder
from sftn.runtime.device import join
from sftn.runtime.leader import leads
from sftn.spec.jobs import Compare
from sftn.spec.run import FORMAT, Branches, FineTune
from sftn.storage import escapes
from sftn.storage.atomic import make_folder, write_atomically
from sftn.storage.json_files import write_json
from sftn.tasks import recipes
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A planned comparison: its table, conditions, seeds and title."""

    table: Table
    conditions: Conditions
    seeds: tuple[int, ...]
    title: str

    @property
    def planned(self) -> list[Planned]:
        """All runs, each once: all of one seed before the next, teachers before their students."""
        return grid(self.table, self.conditions, self.seeds)


def plan(asked: Compare, dataset: Dataset) -> Plan:
    """Plan the runs of a comparison.

    Raises:
        InputError: a network or method is unknown, or an option is out of range.
    """
    seeds = seed_values(asked.seeds)
    if not asked.methods:
        raise InputError("no method given: choose from " + ", ".join(recipes.OBJECTIVES))
    for method in asked.methods:
        recipes.objective(method, alone=asked.alone, temperature=asked.temperature)
    if not asked.student:
        raise InputError("no student given: name at least one network")
    students = tuple(dict.fromkeys((*asked.student, *asked.unknown)))
    for name in (asked.teacher, *students):
        check_name(name)
    made_for = "+".join(asked.student)
    branches = {f.name: getattr(asked.branches, f.name) for f in fields(Branches)}
    table = Table(
        name="compare",
        title="",
        pairs=tuple(Pair(asked.teacher, student, made_for) for student in students),
        methods=tuple(dict.fromkeys(asked.methods)),
        settings=(Setting(friendly=branches),),
        seeds=len(seeds),
        temperature=asked.temperature,
        beside_kd=not asked.alone,
        alignment=requests.alignment(asked.align, students),
        fine_tune=None if asked.fine_tune == FineTune() else asked.fine_tune,
        one_rate=asked.training.lr is not None,
    )
    conditions = Conditions.of(requests.plain_run("", dataset, asked.images, asked.training, asked.execution))
    strangers = f" (and {' + '.join(asked.unknown)}, unknown to the teacher)" if asked.unknown else ""
    title = (
        f"{asked.teacher} → {' + '.join(asked.student)}{strangers}, {dataset.name}, "
        f"{len(dataset.train):,} training images, {conditions.schedule.epochs} epochs"
    )
    return Plan(table, conditions, seeds, title)


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

    @cached_property
    def doubts(self) -> CellDoubts:
        """What is wrong with the networks behind the numbers."""
        return CellDoubts(self.results)

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
        found: list[tuple[str, ...]] = [("", "standard teacher", "student-friendly teacher", "difference")]
        for label, row in self._rows():
            found.append((label, *self._numbers(row, {c: self.accuracies[c] for c in row.cells.values()}, marks=True)))
            by_class = self.doubts.by_class(row.cells.values())
            found += [(f"  {label}", *self._numbers(row, values)) for label, values in by_class]
        return found

    def _numbers(self, row: Row, values: Mapping[Cell, Sequence[float]], *, marks: bool = False) -> tuple[str, ...]:
        """The three cells of a row: standard teacher, student-friendly teacher, difference."""
        texts = {way: spread(values[cell]) + self.doubts.mark(cell) * marks for way, cell in row.cells.items()}
        if ALONE in texts:
            return (texts[ALONE], "", "")
        gaps = [f - s for s, f in zip(values[row.cells[STANDARD]], values[row.cells[FRIENDLY]])]
        return (texts[STANDARD], texts[FRIENDLY], spread(gaps, sign=True))

    def _rows(self) -> Iterator[tuple[str, Row]]:
        """Rows with their labels; the teachers' rows come once, although every student's pair has them."""
        for number, pair in enumerate(self.table.pairs):
            for row in self.table.rows(pair):
                (cell, *_) = row.cells.values()
                if cell.role == "teacher":
                    if number == 0:
                        yield f"teacher {pair.teacher} itself", row
                elif cell.way == ALONE:
                    yield f"student {pair.student} alone", row
                else:
                    yield f"student {pair.student} with {cell.method}", row

    def verdict(self) -> list[str]:
        """One sentence on the outcome for each student and method, whether gain or loss."""
        found = []
        for pair in self.table.pairs:
            for method in self.table.methods:
                standard, friendly = (
                    self.accuracies[Cell(pair, "student", way, method)] for way in (STANDARD, FRIENDLY)
                )
                alone = self.accuracies[Cell(pair, "student", ALONE)]
                who = f"With {recipes.title(method)}, {pair.student}"
                found.append(verdict(who, standard, friendly, alone, self.doubts.of(pair, method)))
        return found

    def record(self) -> dict[str, Any]:
        """The content of comparison.json."""
        rows: dict[tuple[str, ...], dict[str, Any]] = {}  # every student's pair has the teachers' cells
        for cell, values in self.accuracies.items():
            about = {"role": cell.role, "network": cell.network, "way": cell.way, "method": cell.method}
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
        }

    def markdown(self) -> str:
        """The content of comparison.md."""
        header, *rows = ["| " + " | ".join(map(escapes.markdown, row)) + " |" for row in self.rows()]
        table = [header, "|---|---:|---:|---:|", *rows]
        warnings = [line for warning in self.warnings for line in ("", f"> {escapes.markdown(warning)}")]
        said = map(escapes.markdown, self.verdict())
        return "\n".join(
            [f"**{escapes.markdown(self.title)}**", "", self.subtitle(), "", *table, *warnings, "", *said, ""]
        )

    def __str__(self) -> str:
        rows = self.rows()
        first, *others = (max(len(row[column]) for row in rows) for column in range(4))
        lines = [
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others))]).rstrip()
            for row in rows
        ]
        return "\n".join([self.title, self.subtitle(), "", *lines, *self.warnings, "", *self.verdict()])

    def _repr_html_(self) -> str:
        """The table as HTML, for notebooks."""
        header, *rows = [[html.escape(cell) for cell in row] for row in self.rows()]
        head = "".join(f"<th>{cell}</th>" for cell in header)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        caption = f"<caption>{html.escape(self.title)}<br>{self.subtitle()}</caption>"
        said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in (*self.warnings, *self.verdict()))
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def compare(
    asked: Compare,
    dataset: Dataset | None = None,
    *,
    watch: Callable[[str], AbstractContextManager[Callback]] | None = None,
    overall: Callable[[str], None] | None = None,
) -> Comparison:
    """Run a comparison and write comparison.md and comparison.json; finished runs are not trained again.

    Args:
        asked: what to compare, on which images, and how.
        dataset: the images, if they are loaded already.
        watch: makes a context manager from a run's title that yields the run's callback.
        overall: is told, as text, how far all runs are.

    Raises:
        InputError: the input is wrong.
        FloatingPointError: a run diverged; all others are done.
    """
    dataset = requests.load_images(asked.images) if dataset is None else dataset
    chosen = checked(asked, dataset)
    join(asked.execution.device, asked.execution.devices, asked.execution.nodes)
    seconds = announce(chosen, dataset, asked)
    work(chosen.planned, dataset, asked.out, asked.execution, watch=watch, seconds=seconds, overall=overall)
    found = collected(chosen, asked.out)
    if leads() and found.folder is not None:
        write(found, found.folder)
    return found


def checked(asked: Compare, dataset: Dataset) -> Plan:
    """Plan a comparison and check that its runs can be trained; nothing is written.

    Raises:
        InputError: the input is wrong.
    """
    chosen = plan(asked, dataset)
    for item in chosen.planned:
        if item.run.seed == chosen.seeds[0]:
            check(item.run, dataset)
    return chosen


def announce(chosen: Plan, dataset: Dataset, asked: Compare) -> Mapping[str, float]:
    """Log what is compared, what is left to train, and how long that takes here; returns the seconds of each run."""
    logger.info("%s, %s, runs in %s", chosen.title, chosen.conditions.precision, asked.out)
    found = forecast(chosen.planned, dataset, asked.out, asked.execution)
    logger.info(found.line)
    return found.seconds


def collected(chosen: Plan, out: Path) -> Comparison:
    """Collect the results of a comparison from its finished runs.

    Raises:
        InputError: a run is not finished, or its result is damaged.
    """
    accuracies: dict[Cell, list[float]] = {}
    best: dict[Cell, list[float]] = {}
    results: dict[Cell, dict[int, dict[str, Any]]] = {}
    ids = ""
    for seed in chosen.seeds:
        for pair in chosen.table.pairs:
            for cell in chosen.table.cells(pair):
                run = chosen.conditions.run(chosen.table, cell, seed)
                record = RunFolder(out / run.folder).result(run)
                if record is None:
                    raise InputError(f"{run.name} is not done: {out / run.folder} has no result")
                accuracies.setdefault(cell, []).append(record["accuracy"])
                results.setdefault(cell, {})[seed] = record
                best.setdefault(cell, []).append(record["best_accuracy"])
                ids += run.id
    pair = chosen.table.pairs[0]
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"compare-{pair.teacher}-{pair.made_for}")
    folder = out / f"{name}-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    return Comparison(chosen.title, chosen.table, accuracies, best, chosen.seeds, folder, results)


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json and comparison.md to a folder, which is created if necessary."""
    make_folder(folder)
    write_json(folder / "comparison.json", comparison.record())
    write_atomically(folder / "comparison.md", comparison.markdown().encode())
