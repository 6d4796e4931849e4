from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sftn.errors import InputError
from sftn.experiments.collect import Section, Spread, sections
from sftn.experiments.grid import Conditions
from sftn.experiments.paper import table
from sftn.experiments.table import FRIENDLY, STANDARD, Cell, Pair
from sftn.report import html, markdown, terminal, writer
from sftn.report.document import Columns, Drawing, Heading, Matrix, Page, Rows, Text
from sftn.report.figures import tables
from sftn.report.pages.table import page
from sftn.spec.run import Data
from sftn.spec.schedule import Schedule
from tests.support import made_runs as made
from tests.support.drawing import CHROMIUM, DRAWN
from tests.support.reports import reported, written

PAIR = Pair("resnet32x4", "shufflev1")


def line(section: Section, label: str, pair: Pair = PAIR):  # type: ignore[no-untyped-def]
    return next(line for line in section.lines(pair) if line.label == label)


def test_ours_stand_beside_theirs(tmp_path: Path) -> None:
    made.table(tmp_path, table("table15"))
    (section,) = sections(table("table15"), tmp_path)
    assert section.warnings() == []
    row = line(section, "kd, λ_R^CE = 3")
    assert row.sides[FRIENDLY].last.text() == "71.10 ± 0.10 (3)"
    assert row.sides[FRIENDLY].best.text() == "71.60 ± 0.10 (3)"
    assert str(row.sides[FRIENDLY].printed) == "77.74"
    assert row.sides[FRIENDLY].difference == pytest.approx(71.1 - 77.74)
    assert row.gain.text(sign=True) == "+1.00 ± 0.00 (3)"
    assert row.printed_gain == pytest.approx(77.74 - 74.31)
    ours, theirs = section.gains()
    assert (len(ours), len(theirs)) == (12, 12)


def test_a_half_filled_set_of_seeds_says_so_everywhere(tmp_path: Path) -> None:
    which = table("table15")
    planned = made.table(tmp_path, which)
    partial = Cell(PAIR, "student", FRIENDLY, "kd", "3")
    absent = Cell(PAIR, "student", FRIENDLY, "kd", "5")
    for item in planned:
        if item.cell == absent or (item.cell == partial and item.run.seed == 1):
            shutil.rmtree(tmp_path / item.run.folder)
    (section,) = sections(which, tmp_path)
    half, none = line(section, "kd, λ_R^CE = 3"), line(section, "kd, λ_R^CE = 5")
    assert half.sides[FRIENDLY].last.text() == "71.10 ± 0.14 (2 of 3 seeds)"
    assert half.sides[STANDARD].last.complete
    assert half.gain.text(sign=True, count=False) == "+1.00 ± 0.00 (2 of 3 seeds)"
    assert none.sides[FRIENDLY].last.text() == none.gain.text() == "not run"
    assert len(section.gains()[0]) == 10
    assert section.warnings() == [
        "1 of 32 cells have no finished run.",
        "1 of 32 cells have only some of their 3 seeds.",
    ]
    folder = written(page([section], tmp_path))
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "71.10 ± 0.14 (2 of 3 seeds)" in text
        assert "not run" in text
        assert "1 of 32 cells have no finished run." in text


def test_other_conditions_stand_apart_and_are_marked(tmp_path: Path) -> None:
    short = Conditions(Data("cifar100", "0123456789abcdef", limit=5000), Schedule(epochs=30), "bf16")
    made.table(tmp_path, table("table14"), short, seeds=1)
    made.table(tmp_path, table("table14"))
    first, second = sections(table("table14"), tmp_path)
    assert (first.conditions, first.warnings()) == (made.PAPER, [])
    assert second.conditions == short
    assert "5,000 training images of 50,000; 30 epochs instead of 240" in second.warnings()[0]
    assert second.warnings()[1] == "32 of 32 cells have only some of their 3 seeds."
    text = (written(page([first, second], tmp_path)) / "report.html").read_text()
    assert text.count('class="warning"') == 2


def test_nothing_run_is_a_page_of_printed_numbers(tmp_path: Path) -> None:
    (section,) = sections(table("table17"), tmp_path)
    assert section.warnings() == ["No run of this table is finished."]
    text = (written(page([section], tmp_path)) / "report.md").read_text()
    assert "77.23 ± 0.09" in text
    assert "No student has all its seeds" in text


def test_the_page_shows_every_cell_and_needs_nothing_else(tmp_path: Path) -> None:
    made.table(tmp_path, table("table18"))
    folder = reported(["table18"], tmp_path)
    text = (folder / "report.html").read_text()
    assert text.count("<tr>") == 4 * (2 + 2 + 12)  # two lines of headers, two of the networks alone, twelve methods
    assert text.count('data-label="standard, ours"') == text.count('data-label="SFTN, ours"') == 4 * 13
    for printed in ("79.98 ± 0.27", "76.03 ± 0.24", "82.52"):
        assert printed in text
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)=(?!"data:)""", text)
    assert "best epoch" in text
    assert "Some GPU" in text
    assert "commit f00ba4" in text
    assert "Energy: not measured." in text


def test_text_from_files_cannot_become_markup(tmp_path: Path) -> None:
    script, svg = "<script>alert(1)</script>", tmp_path / "x.svg"
    svg.write_text("<svg/>")
    blocks = [Text(script), Rows([("run",), (script,)]), Drawing(script, svg), Matrix([script], [[1]])]
    text = html.render(Page(script, [*blocks, Columns([(script, blocks)])]))
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") == 2 + 2 * 6 + 1  # the page's title twice; a figure and a matrix say it twice


@pytest.mark.parametrize("width", [40, 200])
def test_the_terminal_shows_text_as_it_is(width: int) -> None:
    name = "[bold]run[/bold] [/] \x1b[31m\x07"
    blocks = [Text(name), Heading(name), Rows([("", name), (name, "1")]), Columns([(name, [Text(name)])])]
    file = io.StringIO()
    terminal.show(Page(name, blocks), Console(file=file, width=width, force_terminal=True, color_system=None))
    shown = "".join(file.getvalue().split())
    assert shown.count("[bold]run[/bold][/]\\x1b[31m\\x07") == (7 if width == 200 else 6)  # a narrow column is folded
    assert "\x1b" not in shown


def test_what_is_small_print_in_one_form_is_in_the_others(tmp_path: Path) -> None:
    made.table(tmp_path, table("table15"), seeds=2)
    (section,) = sections(table("table15"), tmp_path)
    whole = page([section], tmp_path)
    row = "| kd, λ_R^CE = 3 | **70.05 ± 0.07 (2 of 3 seeds)**<br>best epoch 70.55 ± 0.07 (2 of 3 seeds) | 74.31 |"
    assert row in markdown.render(whole)
    assert "<span class=best>best epoch 70.55 ± 0.07 (2 of 3 seeds)</span>" in html.render(whole)
    file = io.StringIO()
    terminal.show(whole, Console(file=file))
    assert "best epoch 70.55" not in file.getvalue()
    assert "70.05 ± 0.07 (2 of 3 seeds)  71.05 ± 0.07 (2 of 3 seeds)  +1.00" in file.getvalue()


def test_single_runs_have_a_page(tmp_path: Path) -> None:
    planned = made.table(tmp_path, table("table14"), seeds=1)
    names = [planned[0].run.folder, planned[5].run.id[:8]]
    folder = reported(names, tmp_path)
    text = (folder / "report.html").read_text()
    assert planned[5].run.name in text
    assert "70.50" in text
    (tmp_path / planned[0].run.folder / "result.json").unlink()
    with pytest.raises(InputError, match="is not done"):
        writer.report(names, tmp_path)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (["table99"], "unknown table"),
        (["nothing"], "unknown run"),
        ([], "nothing to report"),
    ],
)
def test_what_cannot_be_reported_is_said(what: list[str], words: str, tmp_path: Path) -> None:
    made.table(tmp_path, table("table14"), seeds=1)
    with pytest.raises(InputError, match=words):
        writer.report(what, tmp_path)
    assert not list(tmp_path.glob("report-*"))


def test_an_edited_result_is_no_result(tmp_path: Path) -> None:
    planned = made.table(tmp_path, table("table14"), seeds=1)
    (tmp_path / planned[-1].run.folder / "result.json").write_text('{"accuracy": 99.9}')
    (section,) = sections(table("table14"), tmp_path)
    assert "1 of 32 cells have no finished run." in section.warnings()


def test_a_spread_makes_nothing_up() -> None:
    assert Spread({}, 3).text() == "not run"
    assert Spread({0: 70.0}, 1).text() == "70.00"  # one seed of one: a count would be noise
    assert Spread({0: 70.0, 1: 72.0}, 2).text() == "71.00 ± 1.41 (2)"
    assert Spread({0: 70.0, 2: 72.0}, 3).minus(Spread({0: 69.0, 1: 1.0}, 3)).text(sign=True) == "+1.00 (1 of 3 seeds)"


def test_a_report_never_imports_what_trains(tmp_path: Path) -> None:
    made.table(tmp_path, table("table14"), seeds=1)
    code = (
        "import sys; from sftn.cli import main; main(sys.argv[1:])\n"
        "bad = {'sftn.runs.runner', 'sftn.experiments.queue', 'sftn.profiling.estimate'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, "report", "table14", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr


@DRAWN
def test_figures_are_drawn_and_taken_into_the_page(tmp_path: Path) -> None:
    made.table(tmp_path, table("table14"))
    folder = reported(["table14"], tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert len([name for name in names if name.endswith(".svg")]) == len([n for n in names if n.endswith(".png")]) == 8
    text = (folder / "report.html").read_text()
    assert text.count('<img src="data:image/svg+xml;base64,') == 8
    svg = (folder / "figure1-wrn_40_2-wrn_16_2-gain.svg").read_text()
    assert "0072b2" in (folder / "figure1-wrn_40_2-wrn_16_2-curves.svg").read_text().lower()
    assert "d55e00" in svg.lower()


def test_without_matplotlib_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "available", lambda: False)
    made.table(tmp_path, table("table14"))
    folder = reported(["table14"], tmp_path)
    assert "matplotlib is not installed" in (folder / "report.html").read_text()
    assert not list(folder.glob("*.svg"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(width: int, tmp_path: Path) -> None:
    from PIL import Image

    made.table(tmp_path, table("table14"))
    folder = reported(["table14"], tmp_path)
    shot = tmp_path / "shot.png"
    asked = subprocess.run(
        [
            *(
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
            ),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1600", f"--screenshot={shot}"),
            f"file://{folder / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in asked.stderr
    image = Image.open(shot).convert("L")
    assert image.width == width
    # Where the first table stands there is ink in every stripe, and at the right edge of a phone nothing is cut off.
    stripes = [image.crop((0, top, width, top + 160)) for top in range(400, 1520, 160)]
    assert all(stripe.getextrema()[0] < 100 for stripe in stripes)
    assert image.crop((width - 8, 0, width, 1600)).getextrema()[0] > 200
