"""Reports from the command line."""

from __future__ import annotations

from sftn import report as reports
from sftn.cli import options


def report(asked: options.Report) -> None:
    """Write the page of tables, studies or runs, and show what a terminal can."""
    reports.command(asked.what, asked.out, data_dir=asked.data_dir, device=asked.device)
