from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.experiments.compare import Comparison, compare, plan
from sftn.experiments.statistics import spread, verdict
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair, Table
from sftn.spec.jobs import Compare, asked
from tests.support import tiny

SMALL = {"teacher": "wide", "student": "tiny", "epochs": 1, "batch": 16, "precision": "float32", "seeds": 2}


@pytest.mark.usefixtures("tiny_networks")
def test_a_comparison_trains_each_run_once_and_shows_all_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    job = asked(Compare, {**SMALL, "methods": ("kd", "at"), "out": tmp_path})
    found = compare(job, tiny.dataset())
    lines = [line for line in caplog.messages if "  seed" in line]
    assert len(lines) == 2 * 7
    assert all(len(values) == 2 for values in found.accuracies.values())
    assert compare(job, tiny.dataset()) == found
    again = [line for line in caplog.messages if "  seed" in line][14:]
    assert len(again) == 14
    assert all("was there" in line for line in again)
    assert found.folder is not None
    text = (found.folder / "comparison.md").read_text()
    assert "| student tiny with at |" in text
    assert "2 seeds" in text
    rows = json.loads((found.folder / "comparison.json").read_text())["rows"]
    assert len(rows) == 7
    assert [row["accuracy"] for row in rows] == list(found.accuracies.values())


@pytest.mark.usefixtures("tiny_networks")
def test_several_students_share_one_friendly_teacher_and_a_stranger_has_no_other(tmp_path: Path) -> None:
    job = asked(Compare, {**SMALL, "student": ("tiny", "wide"), "unknown": ("resnet8",), "out": tmp_path})
    planned = plan(job, tiny.dataset()).planned
    made_for = {item.run.friendly.student for item in planned if item.run.friendly is not None}
    assert made_for == {"tiny+wide"}
    assert len(planned) == 2 * (2 + 3 + 3 * 2 - 1)  # wide alone is the standard teacher


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, "at least 1"),
        ({"methods": ()}, "no method"),
        ({"student": ()}, "no student"),
        ({"student": "resnet9"}, "resnet8"),
        ({"align": ("1:1",), "student": ("resnet8", "resnet14")}, "one student"),
    ],
)
def test_what_cannot_be_compared_is_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(asked(Compare, options), tiny.dataset())


def comparison(alone: list[float], standard: list[float], friendly: list[float]) -> Comparison:
    pair = Pair("t", "s")
    accuracies = {
        Cell(pair, "student", ALONE): alone,
        Cell(pair, "teacher", STANDARD): [90.0] * len(alone),
        Cell(pair, "teacher", FRIENDLY): [91.0] * len(alone),
        Cell(pair, "student", STANDARD, "kd"): standard,
        Cell(pair, "student", FRIENDLY, "kd"): friendly,
    }
    return Comparison("t <b>", Table("compare", "", (pair,)), accuracies, accuracies)


def test_rows_hold_mean_and_sample_deviation() -> None:
    found = comparison([1.0, 3.0], [2.0, 4.0], [5.0, 5.0])
    assert found.rows()[2][1] == "2.00 ± 1.41"
    assert found.rows()[3][1:] == ("3.00 ± 1.41", "5.00 ± 0.00", "+2.00 ± 1.41")
    assert spread([3.0]) == "3.00"


def test_it_shows_itself_in_a_terminal_and_in_a_notebook() -> None:
    found = comparison([1.0, 3.0], [2.0, 4.0], [5.0, 5.0])
    lines = str(found).splitlines()
    assert next(line for line in lines if line.startswith("student s with kd")).endswith("+2.00 ± 1.41")
    page = found._repr_html_()
    assert "<td>3.00 ± 1.41</td>" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("standard", "friendly", "words"),
    [
        ([70.0, 71.0, 72.0], [72.0, 73.1, 74.2], ["2.10 points higher", "3 of 3", "a significant difference"]),
        ([72.0, 73.1, 74.2], [70.0, 71.0, 72.0], ["2.10 points lower", "0 of 3", "a significant difference"]),
        ([70.0, 71.0, 72.0], [72.0, 70.0, 72.5], ["no significant difference", "2 of 3"]),
        ([70.0], [75.0], ["one seed"]),
        ([70.0, 70.0], [70.0, 70.0], ["the same", "no significant difference", "1.00 points above the student alone"]),
        ([70.0, 71.0], [68.996, 69.0], ["lower", "level with the student alone"]),
    ],
)
def test_the_verdict_falls_as_the_numbers_do(standard: list[float], friendly: list[float], words: list[str]) -> None:
    text = verdict("With KD, resnet8", standard, friendly, [69.0] * len(standard))
    assert all(word in text for word in words), text
