"""Our own experiments, one declarative module each, like the tables in `paper`; all but `modern` at a scale for a CPU.

Their protocols were fixed before they were run. To add one, write a module with a `STUDY` and add it to `STUDIES`.
"""

from __future__ import annotations

from sftn.errors import unknown
from sftn.experiments import paper
from sftn.experiments.metrics import Measured
from sftn.experiments.studies import (
    branches,
    cifar20,
    digits,
    gap,
    horizon,
    lighter,
    longer,
    modern,
    patient,
    standardised,
    weights,
)
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Table

_ALL = (
    digits.STUDY,
    branches.STUDY,
    weights.STUDY,
    gap.STUDY,
    patient.STUDY,
    cifar20.STUDY,
    lighter.STUDY,
    longer.STUDY,
    horizon.SHORT,
    horizon.LONG,
    standardised.STUDY,
    modern.STUDY,
)
STUDIES: dict[str, Study] = {study.grid.name: study for study in _ALL}
"""All studies by name."""


def entry(name: str) -> Table | Measured | Study:
    """The table, figure or study with a name.

    Raises:
        InputError: the name is unknown.
    """
    everything = {**paper.TABLES, **STUDIES}
    if name not in everything:
        raise unknown("table", name, everything)
    return everything[name]


def parts(name: str) -> tuple[Table, tuple[Measured, ...]]:
    """The grid of runs of a table, figure or study, and the measurements on it.

    Raises:
        InputError: the name is unknown.
    """
    found = entry(name)
    if isinstance(found, Study):
        return found.grid, found.measured
    return (found.grid, (found,)) if isinstance(found, Measured) else (found, ())
