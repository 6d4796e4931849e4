from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sftn.experiments.compare import ALONE, FRIENDLY, STANDARD, Arm, Comparison, arms, compare, write
from sftn.experiments.statistics import spread, verdict
from sftn.spec.run import Friendly
from sftn.tasks.recipes import objective
from tests.support import tiny


@pytest.mark.usefixtures("tiny_networks")
def test_a_comparison_trains_each_run_once_and_shows_all_arms(tmp_path: Path) -> None:
    data = tiny.dataset()
    seeds, said = [], []
    for seed in range(2):
        teacher, student = (tiny.run(data, name, epochs=1, seed=seed) for name in ("wide", "tiny"))
        friendly = replace(teacher, friendly=Friendly("tiny"))
        seeds.append(arms(teacher, friendly, [student], [objective("kd"), objective("at")]))
    found = compare("tiny things", seeds, data, tmp_path, say=said.append)
    said[:] = [line for line in said if line.startswith("seed")]  # without the students that learned nothing
    assert len(said) == 2 * 7
    assert all(len(values) == 2 for values in found.accuracies.values())
    assert set(found.accuracies) == {arm for arm, _ in seeds[0]}
    again = compare("tiny things", seeds, data, tmp_path, say=said.append)
    assert again == found
    assert all("was there" in line for line in said[14:])
    write(found, tmp_path / "here")
    text = (tmp_path / "here" / "comparison.md").read_text()
    assert "| student tiny by at |" in text
    assert "2 seeds" in text


def comparison(alone: list[float], standard: list[float], friendly: list[float]) -> Comparison:
    accuracies = {
        Arm("student", "s", ALONE): alone,
        Arm("teacher", "t", STANDARD): [90.0] * len(alone),
        Arm("teacher", "t", FRIENDLY): [91.0] * len(alone),
        Arm("student", "s", STANDARD, "kd"): standard,
        Arm("student", "s", FRIENDLY, "kd"): friendly,
    }
    return Comparison("t", accuracies, accuracies)


def test_rows_hold_mean_and_sample_deviation() -> None:
    rows = comparison([1.0, 3.0], [2.0, 4.0], [5.0, 5.0]).rows()
    assert rows[2][1] == "2.00 ± 1.41"
    assert rows[3][1:] == ("3.00 ± 1.41", "5.00 ± 0.00", "+2.00 ± 1.41")
    assert spread([3.0]) == "3.00 (n = 1)"


@pytest.mark.parametrize(
    ("standard", "friendly", "words"),
    [
        ([70.0, 71.0, 72.0], [72.0, 73.1, 74.2], ["more than", "3 of 3", "a clear difference"]),
        ([72.0, 73.1, 74.2], [70.0, 71.0, 72.0], ["less than", "0 of 3", "a clear difference"]),
        ([70.0, 71.0, 72.0], [72.0, 70.0, 72.5], ["no clear difference", "2 of 3"]),
        ([70.0], [75.0], ["one seed"]),
        ([70.0, 70.0], [70.0, 70.0], ["as much as", "no clear difference", "1.00 points above the student alone"]),
        ([70.0, 71.0], [68.996, 69.0], ["less than", "it ended level with the student alone"]),
    ],
)
def test_the_verdict_falls_as_the_numbers_do(standard: list[float], friendly: list[float], words: list[str]) -> None:
    text = verdict("kd", standard, friendly, [69.0] * len(standard))
    assert all(word in text for word in words), text
