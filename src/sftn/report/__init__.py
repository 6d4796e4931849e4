"""Reports: what finished runs say about the paper's tables, and about themselves. Reads folders, never trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sftn.errors import InputError
from sftn.experiments import measured_table, studies
from sftn.experiments.collect import Section, sections
from sftn.experiments.metrics import Measured
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES, Study
from sftn.experiments.table import Table
from sftn.report import html, markdown, terminal
from sftn.report.figures import tables
from sftn.report.pages import measured, study
from sftn.runs.archive import unpacked
from sftn.runs.folder import find
from sftn.storage.atomic import write_atomically

NO_FIGURES = tables.MISSING


def command(
    what: Sequence[str],
    out: Path,
    console: Console | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
) -> list[Path]:
    """Write the pages of tables, and one page of all single runs among them; the folders they lie in.

    Args:
        what: tables, studies or runs.
        out: the folder of all runs, or of kept ones.
        console: None for the terminal.
        data_dir: for runs: where the files of their images are.
        device: for runs: where they are evaluated.

    Raises:
        InputError: a table or run is unknown, or the folder cannot be written.
    """
    console = console or Console(highlight=False)
    if not what:
        raise InputError(f"nothing to report: name tables or studies ({', '.join([*TABLES, *STUDIES])}) or runs")
    named = {**TABLES, **STUDIES}
    names = [name for name in what if name in named or name.startswith(("table", "figure"))]
    wanted = [studies.entry(name) for name in names]
    entries = [find(name, out).inspect() for name in what if name not in names]
    with unpacked(out) as runs:
        folders = [_page(one, runs, out / f"report-{name}", console) for name, one in zip(names, wanted)]
    if entries:
        from sftn.report.pages import runs as own_runs  # it evaluates, which the tables never do

        folders.append(own_runs.write(entries, out, data_dir, device))
    for folder in folders:
        console.print(f"Written: {folder}/report.html and report.md", soft_wrap=True)
    if not tables.available():
        console.print(NO_FIGURES, soft_wrap=True)
    return folders


def _page(entry: Table | Measured | Study, runs: Path, folder: Path, console: Console) -> Path:
    """Show what a folder of runs says of a table or study, and write its page."""
    if isinstance(entry, Study):
        _make(folder)
        return study.write(entry, runs, folder, console)
    if isinstance(entry, Measured):
        pages = measured_table.pages(entry, runs)
        for page in pages:
            measured.show(page, console)
        _make(folder)
        return measured.write(pages, folder)
    found = sections(entry, runs)
    for section in found:
        terminal.show(section, console)
    return write(found, folder)


def write(found: Sequence[Section], folder: Path) -> Path:
    """The page of a table: report.html, report.md and figures in a folder, which is made if need be."""
    _make(folder)
    drawn: list[tuple[str, Path]] = []
    if tables.available():
        for number, section in enumerate(found, start=1):
            drawn += tables.draw(section, folder, f"figure{number}")
    table = found[0].table
    missing = "" if tables.available() else NO_FIGURES
    write_atomically(folder / "report.md", markdown.page(table, found, drawn).encode())
    write_atomically(folder / "report.html", html.page(table, found, drawn, missing).encode())
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
