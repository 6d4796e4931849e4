"""What a table or figure is made of whose numbers are measured on top of a grid of runs. No torch in here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sftn.experiments.table import Table

Measure = Literal["corruption", "transfer", "similarity", "entropy", "curves", "capacity"]
"""What measures it, in `sftn.analysis`; curves and capacity read what runs left and measure nothing more."""

RESULT, LOG = "result", "log"
"""Sources of numbers that every run has: result.json and log.jsonl. Others are `analysis-SOURCE.json`."""


@dataclass(frozen=True)
class Quantity:
    """A number that each network, or each student, of a pair has."""

    source: str
    """RESULT, LOG or the name of a measurement."""
    name: str
    """In that record."""
    label: str
    """As people read it, with its unit."""
    role: Literal["teacher", "student"] = "student"
    """Whose number it is."""
    digits: int = 2
    """After the decimal point."""


@dataclass(frozen=True)
class Measured:
    """A table or figure of the paper: the runs it needs, and what is measured on them."""

    grid: Table
    """The networks that must be trained; it carries name, title, section, notes and the file of printed numbers."""
    measure: Measure
    quantities: tuple[Quantity, ...]
    """Its rows, in their order."""
    printed_gains: Mapping[str, float] = field(default_factory=dict)
    """Mean gains that are printed where single numbers are not, by the label of a quantity."""
    targets: tuple[str, ...] = ()
    """The data sets that features are carried to."""

    @property
    def name(self) -> str:
        """Such as table19 or figure5."""
        return self.grid.name

    @property
    def title(self) -> str:
        """What it is about."""
        return self.grid.title

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before comparing."""
        return self.grid.notes

    @property
    def roles(self) -> tuple[str, ...]:
        """Whose networks are measured."""
        return ("teacher", "student") if self.measure == "entropy" else ("student",)


def transfer_quantity(target: str) -> Quantity:
    """The accuracy of a linear classifier on the features of some other data set."""
    return Quantity("transfer-" + re.sub(r"[^A-Za-z0-9_.+-]+", "-", target), "accuracy", f"on {target}, %")
