"""What a study is made of: a grid of runs under conditions of its own, and what is measured on top of them."""

from __future__ import annotations

from dataclasses import dataclass

from sftn.experiments.metrics import Measured
from sftn.experiments.table import Table


@dataclass(frozen=True)
class Study:
    """An experiment of our own."""

    grid: Table
    measured: tuple[Measured, ...] = ()

    @staticmethod
    def of(grid: Table, *like: Measured) -> Study:
        """A study on whose runs is measured what some tables or figures of the paper say of theirs.

        Plain accuracies are left out of what is measured: the page of a study has them anyway.
        """
        quantities = [tuple(one for one in table.quantities if one.name != "accuracy") for table in like]
        return Study(grid, tuple(Measured(grid, table.measure, own) for table, own in zip(like, quantities)))
