"""What an analysis found, as people and programs get it: a table, JSON, CSV, figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from sftn.errors import InputError
from sftn.report.figures import analysis
from sftn.storage.json_files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
"""Of analysis.json."""


@dataclass(frozen=True)
class Found:
    """What an analysis found, ready to be shown and kept."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    """The table."""
    settings: Mapping[str, Any]
    """What determines it."""
    data: Sequence[Mapping[str, Any]]
    """All that the figure shows, for CSV."""
    figures: Mapping[str, Figure]
    details: Mapping[str, Any]
    """What JSON has besides."""


def keep(found: Found, what: str, out: Path, console: Console) -> Path:
    """Show the table; write analysis.json, analysis.csv and the figures into a folder named after the settings.

    Raises:
        InputError: the folder cannot be made or written.
    """
    digest = hashlib.sha256(json.dumps(found.settings, sort_keys=True).encode()).hexdigest()[:8]
    folder = out / f"analyse-{what}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
    table = Table(title=found.title)
    for column, value in found.rows[0].items():
        if isinstance(value, str):
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column.replace("_", " "), justify="right", min_width=6)
    for row in found.rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)
    record = {"format": FORMAT, "analysis": what, "title": found.title, "settings": found.settings}
    write_json(folder / "analysis.json", record | {"rows": found.rows, **found.details})
    analysis.write_csv(folder / "analysis.csv", found.data)
    for name, drawing in found.figures.items():
        analysis.save(drawing, folder, name)
    names = ", ".join(f"{name}.svg" for name in found.figures)
    console.print(f"Written: {folder}/analysis.json, analysis.csv{', ' if names else ''}{names}", soft_wrap=True)
    return folder


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
    return str(value)
