"""Definition of a study: a grid of runs under its own conditions, and the measurements on them."""

from __future__ import annotations

from dataclasses import dataclass

from sftn.experiments.metrics import Measured
from sftn.experiments.table import Table


@dataclass(frozen=True)
class Study:
    """One of our own experiments: its runs, and the measurements on them."""

    grid: Table
    measured: tuple[Measured, ...] = ()
    published: str = ""
    """CSV file of numbers that others printed for its pairs (`sftn.experiments.studies.published`)."""

    @staticmethod
    def of(grid: Table, *like: Measured) -> Study:
        """A study whose runs are measured like those of the given tables or figures of the paper.

        Plain accuracies are not measured, because the page of a study shows them anyway.
        """
        quantities = [tuple(one for one in table.quantities if one.name != "accuracy") for table in like]
        return Study(grid, tuple(Measured(grid, table.measure, own) for table, own in zip(like, quantities)))
