"""`sftn list`: the names of networks, methods, data sets, recipes, and tables and studies; without torch."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from sftn.cli import options
from sftn.cli.catalogue import Listing, listing
from sftn.cli.console import say, show_table
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES


def list_names(asked: options.List) -> None:
    """List networks, methods, data sets, recipes or tables, one per line."""
    if asked.what == "tables":
        show_table(_tables())
        return
    show_table(_shown(listing(asked.what)))
    if asked.what == "methods":
        say("")
        say("Options, as in crd(negatives=4096,temperature=0.1):0.5")
        say("")
        show_table(_shown(listing("options")))


def _shown(found: Listing) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in found.header:
        table.add_column(column, justify="right" if column in ("stages", "parameters (100 classes)") else "left")
    for row in found.rows:
        table.add_row(*map(Text, row))
    return table


def _tables() -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    table.add_column("what it shows")
    for name, entry in sorted(TABLES.items()):
        table.add_row(name, entry.title)
    table.add_section()
    table.add_row("studies", "our own experiments, all but modern at a scale for a CPU")
    for name, study in STUDIES.items():
        table.add_row(name, study.grid.title)
    return table
