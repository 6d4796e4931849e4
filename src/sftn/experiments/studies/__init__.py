"""Our own experiments at a scale that a CPU allows, one declarative module each, as the paper's tables are in `paper`.

Their protocols were fixed before they were run. Another one is a module with a `STUDY`, and a place in `STUDIES`.
"""

from __future__ import annotations

from sftn.errors import unknown
from sftn.experiments import paper
from sftn.experiments.metrics import Measured
from sftn.experiments.studies import branches, cifar20, digits, gap, horizon, lighter, longer, patient, weights
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
)
STUDIES: dict[str, Study] = {study.grid.name: study for study in _ALL}
"""Every study by its name."""


def entry(name: str) -> Table | Measured | Study:
    """What a name stands for: a table or figure of the paper, or a study.

    Raises:
        InputError: there is none of that name.
    """
    everything = {**paper.TABLES, **STUDIES}
    if name not in everything:
        raise unknown("table", name, everything)
    return everything[name]


def parts(name: str) -> tuple[Table, tuple[Measured, ...]]:
    """The grid of runs of a table, figure or study, and what is measured on top of it.

    Raises:
        InputError: there is none of that name.
    """
    found = entry(name)
    if isinstance(found, Study):
        return found.grid, found.measured
    return (found.grid, (found,)) if isinstance(found, Measured) else (found, ())
