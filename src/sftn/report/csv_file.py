"""CSV files with the numbers of a page or an analysis."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftn.storage.atomic import write_atomically
from sftn.storage.escapes import spreadsheet


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file, with the first row's keys as header; None is an empty field, text never a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet(value) for name, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())
