"""What a table is made of: pairs, methods, settings, conditions, and the printed numbers. No torch in here."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sftn.spec.alignment import Alignment
from sftn.spec.run import FineTune

ALONE, STANDARD, FRIENDLY = "alone", "standard", "friendly"
"""The ways to a network: without a teacher, from or as a standard teacher, from or as a student-friendly one."""
TEACHERS = (STANDARD, FRIENDLY)

METHODS = ("kd", "fitnet", "at", "sp", "vid", "rkd", "pkt", "ab", "ft", "crd", "sskd", "oh")
"""The rows of Tables 17 and 18, in their order: printed facts, which no newly registered method changes."""


@dataclass(frozen=True)
class Pair:
    """A teacher and its student, by our names."""

    teacher: str
    student: str
    made_for: str = ""
    """Whom the student-friendly teacher is made for, joined by +, if not for this student alone."""

    def __str__(self) -> str:
        return f"{self.teacher}:{self.student}"


@dataclass(frozen=True)
class Setting:
    """How the student-friendly teacher is made; one table has one (the paper's), or compares several."""

    name: str = ""
    """As the CSV file has it."""
    label: str = ""
    """As people read it."""
    friendly: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the defaults of `sftn.spec.run.Friendly`."""


@dataclass(frozen=True)
class Cell:
    """One number of a table: a network of a pair, and what it learned from."""

    pair: Pair
    role: Literal["teacher", "student"]
    way: str
    method: str = "-"
    setting: str = ""

    @property
    def network(self) -> str:
        """Whose accuracy it is."""
        return self.pair.teacher if self.role == "teacher" else self.pair.student


@dataclass(frozen=True)
class Row:
    """A line of a table for one pair: the same thing by up to three ways."""

    label: str
    cells: Mapping[str, Cell]
    """By way: ALONE, or STANDARD and FRIENDLY."""


@dataclass(frozen=True)
class Table:
    """A table of the paper, or of a study of our own, as a grid of runs.

    Every cell is a run of each seed; what two tables share, they share on the disk.
    """

    name: str
    title: str
    pairs: tuple[Pair, ...]
    section: str = ""
    """Where the paper says it: a section of the supplementary document; empty for a study."""
    published: str = ""
    """The CSV file of printed numbers; empty if there are none."""
    methods: tuple[str, ...] = ("kd",)
    settings: tuple[Setting, ...] = (Setting(),)
    alone: bool = True
    """Whether the table has the students without a teacher."""
    seeds: int = 3
    recipe: str = "paper"
    """Of `sftn.tasks.recipes.SCHEDULES`."""
    epochs: int | None = None
    batch: int | None = None
    """These two in place of the recipe's, if given."""
    data: str = "cifar100"
    """Its images."""
    limit: int | None = None
    classes: int | None = None
    """Of them only so many to train on, and the first so many classes; all if None."""
    temperature: float | None = None
    """Of KD; 4, and 2 for kd@std, if None."""
    beside_kd: bool = True
    """Whether feature methods have KD beside them."""
    alignment: Alignment | None = None
    """Which stages of teachers and students go together; None for the usual answer."""
    fine_tune: FineTune | None = None
    """How teachers with trained weights are fine-tuned."""
    one_rate: bool = False
    """Whether all networks learn at the schedule's rate, the slow learners too."""
    notes: tuple[str, ...] = ()
    """What a reader must know before comparing: faults of the print, inferences, gaps."""

    @property
    def source(self) -> str:
        """Whose conditions it has: the paper's or the study's."""
        return "paper" if self.section else "study"

    def rows(self, pair: Pair) -> Iterator[Row]:
        """The lines of a pair, the teachers first."""
        for setting in self.settings:
            label = f"teacher, {setting.label}" if setting.label else "teacher itself"
            yield Row(label, self._both(pair, "teacher", "-", setting.name))
        if self.alone:
            yield Row("student alone", {ALONE: Cell(pair, "student", ALONE)})
        for method in self.methods:
            for setting in self.settings:
                label = f"{method}, {setting.label}" if setting.label else method
                yield Row(label, self._both(pair, "student", method, setting.name))

    def cells(self, pair: Pair) -> list[Cell]:
        """The different cells of a pair, teachers before the students that need them."""
        return list(dict.fromkeys(cell for row in self.rows(pair) for cell in row.cells.values()))

    def setting(self, name: str) -> Setting:
        """The setting of a cell; the paper's own for cells that have none."""
        return next((setting for setting in self.settings if setting.name == name), Setting())

    @staticmethod
    def _both(pair: Pair, role: Literal["teacher", "student"], method: str, setting: str) -> dict[str, Cell]:
        standard = Cell(pair, role, STANDARD, method)  # the settings are the friendly teacher's alone
        return {STANDARD: standard, FRIENDLY: Cell(pair, role, FRIENDLY, method, setting)}


def read_csv(text: str) -> list[dict[str, str]]:
    """The rows of a file of printed numbers."""
    return list(csv.DictReader(text.splitlines()))
