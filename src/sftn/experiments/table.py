"""Definitions of tables: pairs, methods, settings and cells, without torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sftn.spec.alignment import Alignment
from sftn.spec.run import FineTune, Weighting, Weights

ALONE, STANDARD, FRIENDLY = "alone", "standard", "friendly"
"""How a network is trained: without a teacher, with (or as) a standard teacher, or a student-friendly one."""
TEACHERS = (STANDARD, FRIENDLY)
BOTH = "both"
"""How a student is trained that learns from the standard and the student-friendly teacher together."""

METHODS = ("kd", "fitnet", "at", "sp", "vid", "rkd", "pkt", "ab", "ft", "crd", "sskd", "oh")
"""The methods of Tables 17 and 18, in the order of their rows; fixed, whatever methods are registered later."""


@dataclass(frozen=True)
class Pair:
    """A teacher and its student, by their names in sftn."""

    teacher: str
    student: str
    made_for: str = ""
    """The students that the student-friendly teacher is trained for, joined by +, if not for this student alone."""

    def __str__(self) -> str:
        return f"{self.teacher}:{self.student}"


@dataclass(frozen=True)
class Setting:
    """How a student-friendly teacher is trained; a table has one setting (the paper's), or compares several."""

    name: str = ""
    """Name in the CSV file of printed numbers."""
    label: str = ""
    """Label for readers."""
    friendly: Mapping[str, Any] = field(default_factory=dict)
    """Values that differ from the defaults of `sftn.spec.run.Friendly`."""


@dataclass(frozen=True)
class Cell:
    """One number of a table: a network of a pair, and how it is trained."""

    pair: Pair
    role: Literal["teacher", "student"]
    way: str
    method: str = "-"
    setting: str = ""

    @property
    def network(self) -> str:
        """The network whose accuracy the cell shows."""
        return self.pair.teacher if self.role == "teacher" else self.pair.student


@dataclass(frozen=True)
class Row:
    """A row of a pair's table: one method or network, trained in up to two ways."""

    label: str
    cells: Mapping[str, Cell]
    """Cells by kind of training: ALONE, or STANDARD, FRIENDLY and BOTH."""


@dataclass(frozen=True)
class Table:
    """A table of the paper or of one of our studies, as a grid of runs.

    Every cell stands for one run per seed; tables that have a cell in common share its runs on disk.
    """

    name: str
    title: str
    pairs: tuple[Pair, ...]
    section: str = ""
    """Section of the paper's supplementary document; empty for a study."""
    published: str = ""
    """CSV file of printed numbers; empty if there are none."""
    methods: tuple[str, ...] = ("kd",)
    objectives: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The objective of a method in a pair, as a text, by both of their names; the method's name alone by default."""
    settings: tuple[Setting, ...] = (Setting(),)
    alone: bool = True
    """Whether the table includes students without a teacher."""
    teachers: tuple[str, ...] = TEACHERS
    """Which teachers the table includes: STANDARD, FRIENDLY or both, and for students perhaps BOTH together."""
    ensemble: Weighting = "mean"
    """How BOTH teachers are weighted."""
    seeds: int = 3
    recipe: str = "paper"
    """Name of the recipe in `sftn.tasks.recipes.SCHEDULES`."""
    epochs: int | None = None
    batch: int | None = None
    """Epochs and batch size that replace the recipe's, unless None."""
    data: str = "cifar100"
    """Name of the data set."""
    limit: int | None = None
    classes: int | None = None
    """Number of training images, and number of (first) classes; all if None."""
    temperature: float | None = None
    """Temperature of KD; by default 4, or 2 for kd@std."""
    beside_kd: bool = True
    """Whether feature methods are combined with KD."""
    alignment: Alignment | None = None
    """Pairs of matching student and teacher stages; None for the default alignment."""
    fine_tune: FineTune | None = None
    """How teachers with pretrained weights are fine-tuned."""
    start: Weights | None = None
    """Trained weights of the teacher, from which its training starts."""
    as_is: bool = False
    """Whether these weights are the standard teacher themselves, without further training."""
    one_rate: bool = False
    """Whether all networks, including the slow learners, use the schedule's learning rate."""
    notes: tuple[str, ...] = ()
    """What readers must know before comparing numbers: misprints, inferences, gaps."""

    @property
    def source(self) -> str:
        """Where its conditions come from: paper or study."""
        return "paper" if self.section else "study"

    def rows(self, pair: Pair) -> Iterator[Row]:
        """The rows of a pair, teachers first."""
        for setting in self.settings:
            label = f"teacher, {setting.label}" if setting.label else "teacher itself"
            yield Row(label, self._both(pair, "teacher", "-", setting.name))
        if self.alone:
            yield Row("student alone", {ALONE: Cell(pair, "student", ALONE)})
        for method in self.methods:
            text = self.objective(pair, method)
            for setting in self.settings:
                label = f"{text}, {setting.label}" if setting.label else text
                yield Row(label, self._both(pair, "student", method, setting.name))

    def cells(self, pair: Pair) -> list[Cell]:
        """The distinct cells of a pair, teachers before the students that need them."""
        return list(dict.fromkeys(cell for row in self.rows(pair) for cell in row.cells.values()))

    def objective(self, pair: Pair, method: str) -> str:
        """What a method stands for in a pair, such as dkd(beta=6)."""
        return self.objectives.get((str(pair), method), method)

    def setting(self, name: str) -> Setting:
        """The setting of that name; the paper's own if there is none."""
        return next((setting for setting in self.settings if setting.name == name), Setting())

    def given(self, cell: Cell) -> Weights | None:
        """The weights that are the teacher of a cell as they are; None where it is trained."""
        return self.start if self.as_is and cell.way == STANDARD else None

    def _both(self, pair: Pair, role: Literal["teacher", "student"], method: str, setting: str) -> dict[str, Cell]:
        standard = Cell(pair, role, STANDARD, method)  # settings apply only to friendly teachers
        both = {STANDARD: standard, FRIENDLY: Cell(pair, role, FRIENDLY, method, setting)}
        if role == "student":
            both[BOTH] = Cell(pair, role, BOTH, method, setting)
        return {way: cell for way, cell in both.items() if way in self.teachers}


def read_csv(text: str) -> list[dict[str, str]]:
    """Parse a CSV file of printed numbers into rows."""
    return list(csv.DictReader(text.splitlines()))
