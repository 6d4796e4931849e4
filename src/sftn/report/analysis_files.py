"""Results of an analysis as files: a table, JSON, CSV and figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftn.report.csv_file import write_csv
from sftn.report.document import Page, Rows
from sftn.report.figures import analysis
from sftn.storage.atomic import make_folder
from sftn.storage.json_files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
"""Format version of analysis.json."""


@dataclass(frozen=True)
class Found:
    """Results of an analysis, ready to be shown and saved."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    """Rows of the table."""
    settings: Mapping[str, Any]
    """Settings that determine the results."""
    data: Sequence[Mapping[str, Any]]
    """All numbers of the figures, for CSV."""
    figures: Mapping[str, Figure]
    details: Mapping[str, Any]
    """Further contents of analysis.json."""


def keep(found: Found, what: str, out: Path) -> Page:
    """Write analysis.json, analysis.csv and the figures to a folder named by a hash of the settings.

    Returns:
        The table, as a page.

    Raises:
        InputError: the folder cannot be created or written.
    """
    digest = hashlib.sha256(json.dumps(found.settings, sort_keys=True).encode()).hexdigest()[:8]
    folder = make_folder(out / f"analyse-{what}-{digest}")
    record = {"format": FORMAT, "analysis": what, "title": found.title, "settings": found.settings}
    write_json(folder / "analysis.json", record | {"rows": found.rows, **found.details})
    write_csv(folder / "analysis.csv", found.data)
    for name, drawing in found.figures.items():
        analysis.save(drawing, folder, name)
    first, cells = found.rows[0], [[_cell(value) for value in row.values()] for row in found.rows]
    words = sum(isinstance(value, str) for value in first.values())
    rows = Rows([[name.replace("_", " ") for name in first], *cells], words)
    return Page(found.title, [rows], folder)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
    return str(value)
