"""Reports by name: the pages of tables, studies and runs, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftn.errors import InputError
from sftn.experiments import studies
from sftn.experiments.collect import sections
from sftn.experiments.measured_table import measured_sections
from sftn.experiments.metrics import Measured
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES, Study
from sftn.experiments.table import Table
from sftn.report import html, markdown
from sftn.report.csv_file import write_csv
from sftn.report.document import Page
from sftn.report.pages import comparison, study, table
from sftn.runs.archive import unpacked
from sftn.runs.folder import find
from sftn.storage.atomic import make_folder, write_atomically


def report(what: Sequence[str], out: Path, *, data_dir: Path | None = None, device: str = "auto") -> list[Page]:
    """Write one page for each table, study and comparison, and one page for all single runs.

    Args:
        what: names of tables and studies, folders of comparisons, and folders or ids of runs.
        out: the folder of all runs, or of kept ones.
        data_dir: for runs: folder of their data sets' files.
        device: for runs: the device to evaluate them on.

    Returns:
        The pages, which are written to report.html and report.md in their folders.

    Raises:
        InputError: a table or run is unknown, or the folder cannot be written.
    """
    if not what:
        raise InputError(
            f"nothing to report: name tables or studies ({', '.join([*TABLES, *STUDIES])}), comparisons or runs"
        )
    named = {**TABLES, **STUDIES}
    tables = {name: studies.entry(name) for name in what if name in named or name.startswith(("table", "figure"))}
    compared = {name: place for name in what if name not in tables and (place := comparison.is_comparison(name, out))}
    entries = [find(name, out).inspect() for name in what if name not in tables and name not in compared]
    with unpacked(out) as runs:
        pages = [_page(entry, runs, out / f"report-{name}") for name, entry in tables.items()]
    pages += [comparison.page(place, out) for place in compared.values()]
    if entries:
        from sftn.report.pages import runs as own_runs  # imports PyTorch code for evaluation, which tables never need

        pages.append(own_runs.page(entries, out, data_dir, device))
    for page in pages:
        write(page)
    return pages


def write(page: Page) -> None:
    """Write report.html, report.md and, if a page has numbers, report.csv to its folder.

    Raises:
        InputError: the folder cannot be written.
    """
    if page.numbers:
        write_csv(page.folder / "report.csv", page.numbers)
    write_atomically(page.folder / "report.md", markdown.render(page).encode())
    write_atomically(page.folder / "report.html", html.render(page).encode())


def _page(entry: Table | Measured | Study, runs: Path, folder: Path) -> Page:
    """The page of a table or study, from a folder of runs."""
    if isinstance(entry, Study):
        return study.page(entry, sections(entry.grid, runs), make_folder(folder))
    if isinstance(entry, Measured):
        return table.measured_page(measured_sections(entry, runs), make_folder(folder))
    return table.page(sections(entry, runs), make_folder(folder))
