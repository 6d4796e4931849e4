"""The paper's tables and figures, one declarative module each.

A table of accuracies is a `Table`; one that needs further measurements on its runs, or a figure, is a `Measured`. To
add one, write a module with a `TABLE` and add it to `TABLES`.
"""

from __future__ import annotations

from sftn.errors import unknown
from sftn.experiments.metrics import Measured
from sftn.experiments.paper import (
    figure4,
    figure5,
    imagenet,
    table11,
    table12,
    table13,
    table14,
    table15,
    table16,
    table17,
    table18,
    table19,
)
from sftn.experiments.table import Table

_ALL: tuple[Table | Measured, ...] = (
    *(table11.TABLE, table12.TABLE, table13.TABLE, table14.TABLE, table15.TABLE, table16.TABLE, table17.TABLE),
    *(table18.TABLE, table19.TABLE, figure4.TABLE, figure5.TABLE, imagenet.TABLE),
)
TABLES: dict[str, Table | Measured] = {entry.name: entry for entry in _ALL}
"""All tables and figures by name."""


def entry(name: str) -> Table | Measured:
    """The table or figure with a name such as table17 or figure5.

    Raises:
        InputError: the name is unknown.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    return TABLES[name]


def table(name: str) -> Table:
    """The grid of runs of a table or figure.

    Raises:
        InputError: the name is unknown.
    """
    found = entry(name)
    return found.grid if isinstance(found, Measured) else found
