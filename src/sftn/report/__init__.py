"""Reports: what finished runs say about the paper's tables. Reads folders, never trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sftn import paper
from sftn.checkpoint import write_atomically
from sftn.errors import InputError
from sftn.paper import TABLES
from sftn.paper.measured import Measured
from sftn.report import figures, html, markdown, measured, terminal
from sftn.report.collect import Section, cost, sections
from sftn.runs import DONE, Entry, find, look

NO_FIGURES = figures.MISSING


def command(what: Sequence[str], out: Path, console: Console | None = None) -> list[Path]:
    """Write the pages of tables, and one page of all single runs among them; the folders they lie in.

    Raises:
        InputError: a table or run is unknown, or the folder cannot be written.
    """
    console = console or Console(highlight=False)
    if not what:
        raise InputError(f"nothing to report: name tables ({', '.join(TABLES)}) or runs")
    tables = [name for name in what if name in TABLES or name.startswith(("table", "figure"))]
    wanted = [paper.entry(name) for name in tables]
    entries = [look(find(name, out)) for name in what if name not in tables]
    folders = []
    for table in wanted:
        if isinstance(table, Measured):
            folders.append(_measured(table, out, console))
            continue
        found = sections(table, out)
        for section in found:
            terminal.show(section, console)
        folders.append(write(found, out / f"report-{table.name}"))
    if entries:
        folders.append(write_runs(entries, out))
    for folder in folders:
        console.print(f"Written: {folder}/report.html and report.md", soft_wrap=True)
    if not figures.available():
        console.print(NO_FIGURES, soft_wrap=True)
    return folders


def _measured(which: Measured, out: Path, console: Console) -> Path:
    pages = measured.pages(which, out)
    for page in pages:
        measured.show(page, console)
    folder = out / f"report-{which.name}"
    _make(folder)
    return measured.write(pages, folder)


def write(found: Sequence[Section], folder: Path) -> Path:
    """The page of a table: report.html, report.md and figures in a folder, which is made if need be."""
    _make(folder)
    drawn: list[tuple[str, Path]] = []
    if figures.available():
        for number, section in enumerate(found, start=1):
            drawn += figures.draw(section, folder, f"figure{number}")
    table = found[0].table
    missing = "" if figures.available() else NO_FIGURES
    write_atomically(folder / "report.md", markdown.page(table, found, drawn).encode())
    write_atomically(folder / "report.html", html.page(table, found, drawn, missing).encode())
    return folder


def write_runs(entries: Sequence[Entry], out: Path) -> Path:
    """The page of single runs."""
    unfinished = [entry.folder.name for entry in entries if entry.state != DONE]
    if unfinished:
        raise InputError(f"{unfinished[0]} is not done: finish it first, see sftn runs list")
    rows = [("run", "seed", "images", "epochs", "last epoch, %", "best epoch, %", "training, s", "id")]
    for entry in entries:
        run, record = entry.run, entry.result or {}
        if run is not None:
            limit = "" if run.data.limit is None else f" ({run.data.limit})"
            best = record.get("best_accuracy", record["accuracy"])
            numbers = (f"{record['accuracy']:.2f}", f"{best:.2f}", f"{record['seconds']:.0f}")
            rows.append((run.name, str(run.seed), run.data.name + limit, str(run.schedule.epochs), *numbers, run.id))
    ids = "".join(row[-1] for row in rows[1:])
    folder = out / f"report-runs-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    _make(folder)
    title = f"{len(entries)} runs" if len(entries) > 1 else rows[1][0]
    drawn = figures.of_runs(entries) if figures.available() else None
    parts = [f"<h1>{title}</h1>", html.simple_table(rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    text = [f"# {title}", "\n".join([head, "|---" * len(rows[0]) + "|", *body])]
    if drawn is not None:
        path = figures.save(drawn, folder / "curves.svg")
        parts.append(html.figure("Test accuracy while training", path))
        text.append(f"![Test accuracy while training]({path.name})")
    lines = cost(entries)
    parts.append("<ul class=note>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>")
    text.append("\n".join(f"- {line}" for line in lines))
    write_atomically(folder / "report.md", ("\n\n".join(text) + "\n").encode())
    write_atomically(folder / "report.html", html.document(title, parts).encode())
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
