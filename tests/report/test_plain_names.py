"""Names that look like markup are shown as they are: on the screen, in pages, figures and files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from sftn.cli import console
from sftn.cli.progress import Display
from sftn.report import html, markdown, terminal
from sftn.report.csv_file import write_csv
from sftn.report.document import Bullets, Cell, Column, Comparison, Heading, Matrix, Page, Rows, Text
from tests.support.drawing import DRAWN

NAMES = ("[red]cats", ":smile:", "a|b", "<b>x</b>", "$x_1$", "[/]", "`c`", "_d_", "[bold]\\[/bold]")
PAGE = Page(
    NAMES[0],
    [
        *(block for name in NAMES for block in (Heading(name), Text(name), Text(name, "warning"))),
        Bullets(NAMES),
        Rows([NAMES, NAMES], len(NAMES)),
        Matrix(NAMES, [[1] * len(NAMES)] * len(NAMES)),
        Comparison([Column("g", "n", NAMES[0], brief=True)], [(name, [Cell(name, below=name)]) for name in NAMES]),
    ],
)


def screen(monkeypatch: pytest.MonkeyPatch, *, width: int = 80, terminal: bool = False) -> io.StringIO:
    """The console of all commands, writing to memory."""
    said = io.StringIO()
    monkeypatch.setattr(console.console, "_file", said)
    monkeypatch.setattr(console.console, "_force_terminal", terminal)
    monkeypatch.setattr(console.console, "_width", width)
    return said


def test_the_console_of_all_commands_prints_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said = screen(monkeypatch)
    table = Table(*NAMES, title=NAMES[0], caption=NAMES[1])
    table.add_row(*NAMES)
    console.show_table(table)
    console.console.print(*NAMES)
    for name in NAMES:
        console.say(name)
        assert said.getvalue().count(name) >= 4, name


def test_there_is_one_console() -> None:
    source = Path(console.__file__).parents[1]
    made = [path.name for path in source.rglob("*.py") if re.search(r"\bConsole\((?!\))", path.read_text())]
    assert made == ["console.py"]


def test_progress_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    shown = Display(Console(file=said, width=300), seconds=0)
    for name in NAMES:
        with shown.watch(name) as line:
            line.start("[red]distil", 2, 1, 1)
            row = {"phase": "distil", "epoch": 2, "loss": 1.0, "images_per_second": 1.0, "seconds": 1.0}
            line.epoch(row)
        assert f"  {name}: [red]distil resumes after epoch 1 of 2" in said.getvalue()


def test_a_page_in_the_terminal() -> None:
    said = io.StringIO()
    terminal.show(PAGE, Console(file=said, width=300))
    for name in NAMES:
        assert said.getvalue().count(name) >= 8, name


def test_no_name_is_cut_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    said = screen(monkeypatch, terminal=True)
    name = "resnet8-kd-from-resnet20-for-resnet8"
    table = Table("run", "where", "images", "id")
    table.add_row(name, "x" * 50, name, "0123456789ab")
    console.show_table(table)
    text = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())
    assert "…" not in text
    assert text.count("x") == 50
    assert max(map(len, text.splitlines())) <= 80


def test_a_page_in_markdown() -> None:
    text = markdown.render(PAGE)
    width = next(line for line in text.splitlines() if line.startswith("|---"))
    assert len(re.findall(r"(?<!\\)\|", next(line for line in text.splitlines() if "[red]cats |" in line))) == len(
        re.findall(r"\|", width)
    )
    for plain, escaped in (("<b>x</b>", r"\<b>x\</b>"), ("$x_1$", r"\$x_1\$")):
        assert text.count(escaped) >= 8
        assert plain not in text


def test_a_page_in_html() -> None:
    text = html.render(PAGE)
    assert "<b>" not in text
    assert text.count("&lt;b&gt;x&lt;/b&gt;") >= 8
    assert text.count("[/]") >= 8


def test_csv_files_hold_no_formulas(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"class": "=cmd|x", "value": -1.5}, {"class": "cat", "value": None}])
    rows = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))
    assert rows == [["class", "value"], ["'=cmd|x", "-1.5"], ["cat", ""]]


@DRAWN
def test_figures_show_names_and_not_formulas(tmp_path: Path) -> None:
    from sftn.report.figures import analysis, runs

    rows = [(name, 50.0 + n, 1e5 * (1 + n), 1.0 + n) for n, name in enumerate(NAMES)]
    path = analysis.save(runs.tradeoff(rows), tmp_path, "a/b: $x$")
    assert path.name == "a-b-x-.svg"
    text = path.read_text()
    for name in ("$x_1$", "[red]cats", "_d_", "&lt;b&gt;x&lt;/b&gt;"):
        assert f">{name}</text>" in text
    figure = analysis.values([{"label": "$x_1$ and $y$", "v": 1.0}], "label", {"v": "v of $z$"})
    drawn = analysis.save(figure, tmp_path, "values").read_text()
    assert ">$x_1$ and $y$</text>" in drawn
    assert ">v of $z$</text>" in drawn


@DRAWN
def test_numbers_at_a_logarithmic_axis_are_powers_still(tmp_path: Path) -> None:
    from sftn.report.figures import analysis

    figure, (ax,) = analysis.panels(1)
    ax.plot([1, 1000], [1, 1000], label=analysis.legend("_net"))
    ax.set_yscale("log")
    ax.legend()
    text = re.sub(r"<!--.*?-->", "", analysis.save(figure, tmp_path, "log").read_text())
    assert "mathdefault" not in text
    assert " _net" in text


@DRAWN
def test_parameters_are_on_a_logarithmic_axis_and_epochs_are_whole() -> None:
    from sftn.report.figures import runs, tables

    left, right = runs.tradeoff([("a", 50.0, 1e5, 1.0), ("b", 60.0, 1e7, 9.0)]).axes
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in left.texts] == ["a", "b"]
    figure, (axis,) = tables.canvas(1, 1, height=2.0)
    axis.plot([1, 2], [3.0, 4.0])
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in axis.get_xticks())


def test_tables_of_a_page_show_that_they_scroll() -> None:
    text = html.render(PAGE)
    assert text.count("<div class=scroll tabindex=0>") == 1
    assert "background-attachment: local, local, scroll, scroll" in text
