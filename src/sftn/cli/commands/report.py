"""`sftn report`: write reports on tables, studies and runs."""

from __future__ import annotations

from sftn.cli import options
from sftn.cli.console import console, say
from sftn.report import terminal, writer


def report(asked: options.Report) -> None:
    """Write the pages of tables, studies and runs, and print them to the terminal without figures."""
    pages = writer.report(asked.what, asked.out, data_dir=asked.data_dir, device=asked.device)
    for page in pages:
        terminal.show(page, console)
    for page in pages:
        say(f"Written: {page.folder}/report.html and report.md")
