"""The page of a table or figure whose numbers are measured on top of its runs: ours beside theirs, and the CSV."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.console import Console

from sftn.experiments.collect import cost
from sftn.experiments.measured_table import Page
from sftn.report import html, markdown
from sftn.report.figures import measured, tables
from sftn.report.figures.analysis import write_csv
from sftn.report.phrases import heading, where
from sftn.report.terminal import show_lines
from sftn.storage.atomic import write_atomically

LEGEND = (
    "Ours: mean ± sample standard deviation (number of seeds). SFTN is the student-friendly teacher; the gain is SFTN "
    "minus standard, ours paired by seed. A cell without a number was not run or not measured."
)


def show(page: Page, console: Console) -> None:
    """Print a page: ours, and the gains ours and theirs."""
    console.print(f"[bold]{heading(page.section.table)}[/bold]", soft_wrap=True)
    console.print(str(page.section.conditions or "nothing run yet"), soft_wrap=True)
    for pair in page.section.table.pairs:
        show_lines(page.lines(pair), f"{pair.teacher} → {pair.student}", console)
    for warning in page.warnings():
        console.print(f"[bold]{warning}[/bold]", soft_wrap=True)
    for gain in page.gains():
        console.print(f"Mean gain, {gain}", soft_wrap=True)


def write(found: Sequence[Page], folder: Path) -> Path:
    """report.html, report.md, report.csv and the figures in a folder that is there."""
    table = found[0].which.grid
    missing = "" if tables.available() else tables.MISSING
    title = heading(table)
    parts = [f"<h1>{escape(title)}</h1>", html.paragraph(where(table), "note"), html.paragraph(LEGEND, "note")]
    text = [f"# {title}", where(table), LEGEND]
    parts += [html.paragraph(f"Note: {note}", "note") for note in table.notes]
    text += [f"> Note: {note}" for note in table.notes]
    for number, page in enumerate(found, 1):
        conditions = str(page.section.conditions or "Nothing run yet")
        warnings, gains, lines = page.warnings(), page.gains(), cost(page.section.distinct())
        parts += [f"<section><h2>{escape(conditions)}</h2>", *(html.paragraph(one, "warning") for one in warnings)]
        text += [f"## {conditions}", *(f"> **{one}**" for one in warnings)]
        parts.append("<p>Mean gain of SFTN over the standard teacher:</p>" + html.bullets(gains))
        text.append("Mean gain of SFTN over the standard teacher:\n\n" + "\n".join(f"- {one}" for one in gains))
        for pair in page.section.table.pairs:
            parts.append(f"<h3>{escape(str(pair))}</h3>".replace(":", " → ") + html.lines_table(page.lines(pair)))
            text += [f"### {pair.teacher} → {pair.student}", markdown.lines_table(page.lines(pair))]
        if not missing:
            for caption, path in measured.draw(page, folder, f"figure{number}"):
                parts.append(html.figure(caption, path))
                text.append(f"![{caption}]({path.name})")
        if page.section.conditions is not None:
            parts.append(f"<h3>Cost and origin</h3>{html.bullets(lines)}")
            text.append("Cost and origin:\n\n" + "\n".join(f"- {line}" for line in lines))
        parts.append("</section>")
    write_csv(folder / "report.csv", [row for page in found for row in page.rows()])
    write_atomically(folder / "report.md", ("\n\n".join(text) + "\n").encode())
    write_atomically(folder / "report.html", html.document(title, [*parts, html.paragraph(missing, "note")]).encode())
    return folder
