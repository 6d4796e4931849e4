"""Compare: a student alone, from a standard teacher and from a student-friendly one, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from sftn.data.dataset import Dataset
from sftn.experiments.statistics import spread, verdict
from sftn.runs.cohort import carry_out, company, size
from sftn.spec.execution import Conduct
from sftn.spec.objective import Objective
from sftn.spec.run import FORMAT, Run
from sftn.storage.atomic import write_atomically
from sftn.storage.json_files import write_json
from sftn.training.callback import Watcher

ALONE, STANDARD, FRIENDLY = "alone", "standard", "friendly"
"""The three ways to a student: without a teacher, from a standard one, from a student-friendly one."""


@dataclass(frozen=True)
class Arm:
    """A cell of the comparison: which teacher, or which student by which way."""

    role: str
    """"teacher" or "student"."""
    network: str
    way: str
    """ALONE, STANDARD or FRIENDLY."""
    method: str = "-"


def arms(
    teacher: Run, friendly: Run, students: Sequence[Run], objectives: Sequence[Objective]
) -> list[tuple[Arm, Run]]:
    """The runs of one seed, teachers before the students that need them.

    Args:
        teacher: the standard teacher.
        friendly: the student-friendly one.
        students: each alone; those that the friendly teacher was made for, or others.
        objectives: by what the students are distilled.
    """
    listed = [(Arm("student", student.network, ALONE), student) for student in students]
    ways = ((STANDARD, teacher), (FRIENDLY, friendly))
    listed += [(Arm("teacher", teacher.network, way), source) for way, source in ways]
    for student in students:
        for objective in objectives:
            for way, source in ways:
                run = replace(student, teacher=source, objective=objective, alignment=friendly.alignment)
                listed.append((Arm("student", student.network, way, objective.name), run))
    return listed


@dataclass(frozen=True)
class Comparison:
    """Accuracies of the last epoch in percent, by arm, one a seed."""

    title: str
    accuracies: dict[Arm, list[float]]
    best: dict[Arm, list[float]]
    """The best epoch's, for those who report that one."""

    def students(self) -> list[tuple[str, str]]:
        """(network, method) of every distilled student."""
        return list(dict.fromkeys((arm.network, arm.method) for arm in self.accuracies if arm.method != "-"))

    def subtitle(self) -> str:
        """What the numbers are."""
        seeds = max(len(values) for values in self.accuracies.values())
        return f"test accuracy in %, last epoch, mean ± std of {seeds} seed{'s' if seeds > 1 else ''}"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The cells of the table, its header first; a row a student and method."""
        found = [("", "standard teacher", "student-friendly teacher", "difference")]
        found += [
            (f"teacher {arm.network} itself", *self._cells(arm))
            for arm in self.accuracies
            if (arm.role, arm.way) == ("teacher", STANDARD)
        ]
        for arm, values in self.accuracies.items():
            if arm.way == ALONE:
                found.append((f"student {arm.network} alone", spread(values), "", ""))
                found += [
                    (f"student {network} by {method}", *self._cells(Arm("student", network, STANDARD, method)))
                    for network, method in self.students()
                    if network == arm.network
                ]
        return found

    def table(self) -> Table:
        """For a terminal."""
        header, *rows = self.rows()
        table = Table(title=f"{self.title}\n{self.subtitle()}")
        table.add_column(header[0], no_wrap=max(len(row[0]) for row in rows) <= 32, overflow="fold")
        for column in header[1:]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For comparison.md."""
        header, *rows = ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join(
            [
                f"**{self.title}**",
                "",
                self.subtitle(),
                "",
                header,
                "|---|---:|---:|---:|",
                *rows,
                "",
                *self.verdict(),
                "",
            ]
        )

    def _cells(self, arm: Arm) -> tuple[str, str, str]:
        standard, friendly = self.accuracies[arm], self.accuracies[replace(arm, way=FRIENDLY)]
        gaps = [f - s for s, f in zip(standard, friendly)]
        return spread(standard), spread(friendly), spread(gaps, sign=True)

    def verdict(self) -> list[str]:
        """A sentence a student and method on what was measured, whichever way it falls."""
        return [
            verdict(
                f"By {method}, {network}",
                self.accuracies[Arm("student", network, STANDARD, method)],
                self.accuracies[Arm("student", network, FRIENDLY, method)],
                self.accuracies[Arm("student", network, ALONE)],
            )
            for network, method in self.students()
        ]

    def record(self) -> dict[str, Any]:
        """For comparison.json."""
        rows = [
            {**asdict(arm), "accuracy": self.accuracies[arm], "best_accuracy": self.best[arm]}
            for arm in self.accuracies
        ]
        return {"format": FORMAT, "title": self.title, "rows": rows, "verdict": self.verdict()}


def compare(
    title: str,
    seeds: Sequence[list[tuple[Arm, Run]]],
    dataset: Dataset,
    out: Path,
    conduct: Conduct = Conduct(),
    *,
    watch: Callable[[str], AbstractContextManager[Watcher]] | None = None,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Carry out the runs of all seeds, all arms of one seed before the next; what is done is not done again.

    Args:
        title: of the table.
        seeds: for each seed its arms, as `arms` gives them.
        dataset: the images.
        out: the folder of all runs.
        conduct: how.
        watch: gives the watcher of a run, from the run's title.
        say: is told a line a run.
    """
    accuracies: dict[Arm, list[float]] = {}
    best: dict[Arm, list[float]] = {}

    def title_of(runs: Sequence[Run]) -> str:
        return f"{runs[0].name}{f' and {len(runs) - 1} more' * (len(runs) > 1)} (seed {runs[0].seed})"

    most = size(conduct, [run for _, run in seeds[0]] if seeds else [], say)
    for listed in seeds:
        records: dict[str, dict[str, Any]] = {}
        there = {run.id for _, run in listed if (out / run.folder / "result.json").exists()}
        for _, run in listed:
            if run.id in records:
                continue
            left = [other for _, other in listed if other.id not in records.keys() | there]
            group = [run] if run.id in there else company(left, most)
            with nullcontext() if watch is None else watch(title_of(group)) as watcher:
                found = carry_out(group, dataset, out, conduct, watcher=watcher, say=say)
            for each, record in zip(group, found):
                if isinstance(record, Exception):
                    raise record
                records[each.id] = record
                took = "was there" if each.id in there else f"{record['seconds']:.0f} s"
                say(f"seed {each.seed}  {each.name:<44} {record['accuracy']:6.2f} %  ({took})")
        for arm, run in listed:
            accuracies.setdefault(arm, []).append(records[run.id]["accuracy"])
            best.setdefault(arm, []).append(records[run.id]["best_accuracy"])
    return Comparison(title, accuracies, best)


def write(comparison: Comparison, folder: Path) -> None:
    """Leave comparison.json and comparison.md in a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", comparison.record())
    write_atomically(folder / "comparison.md", comparison.markdown().encode())
