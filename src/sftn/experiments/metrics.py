"""Definitions of tables and figures whose numbers are measured on a grid of runs, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sftn.experiments.table import Table

Measure = Literal["corruption", "transfer", "similarity", "entropy", "curves", "capacity"]
"""The kind of measurement, from `sftn.analysis`; curves and capacity only read existing files of runs."""

RESULT, LOG = "result", "log"
"""Sources of numbers that every run has: result.json and log.jsonl. Other sources are `analysis-SOURCE.json`."""


@dataclass(frozen=True)
class Quantity:
    """A number that is defined for every teacher or every student of a pair."""

    source: str
    """Where the number is stored: RESULT, LOG or the name of a measurement."""
    name: str
    """Key in that record."""
    label: str
    """Label with the unit, for readers."""
    role: Literal["teacher", "student"] = "student"
    """The network that the number describes."""
    digits: int = 2
    """Digits after the decimal point."""


@dataclass(frozen=True)
class Measured:
    """A table or figure of the paper: the runs that it needs, and the quantities measured on them."""

    grid: Table
    """The runs to train, with name, title, section, notes and the file of printed numbers."""
    measure: Measure
    quantities: tuple[Quantity, ...]
    """Quantities in the order of the rows."""
    printed_gains: Mapping[str, float] = field(default_factory=dict)
    """Printed mean gains, where single numbers are not printed, by the label of the quantity."""
    targets: tuple[str, ...] = ()
    """Target data sets of a transfer experiment."""

    @property
    def name(self) -> str:
        """The name, such as table19 or figure5."""
        return self.grid.name

    @property
    def title(self) -> str:
        """The title of the table or figure."""
        return self.grid.title

    @property
    def notes(self) -> tuple[str, ...]:
        """What readers must know before comparing numbers."""
        return self.grid.notes

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the networks that are measured."""
        return ("teacher", "student") if self.measure == "entropy" else ("student",)


def transfer_quantity(target: str) -> Quantity:
    """The accuracy of a linear classifier on the features of a target data set."""
    return Quantity("transfer-" + re.sub(r"[^A-Za-z0-9_.+-]+", "-", target), "accuracy", f"on {target}, %")
