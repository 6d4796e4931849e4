"""What was wrong with a network is in the table, the verdict and the files of its comparison."""

from __future__ import annotations

from typing import Any

import pytest

from sftn.experiments.comparison import Comparison
from sftn.experiments.doubts import CellDoubts
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair, Table

PAIR = Pair("t", "s")
TEACHER, FRIEND = Cell(PAIR, "teacher", STANDARD), Cell(PAIR, "teacher", FRIENDLY)
LONELY = Cell(PAIR, "student", ALONE)
TAUGHT, BEFRIENDED = Cell(PAIR, "student", STANDARD, "kd"), Cell(PAIR, "student", FRIENDLY, "kd")
CELLS = (TEACHER, FRIEND, LONELY, TAUGHT, BEFRIENDED)
SAME = "gives nearly all test images the same class"


def result(accuracy: float = 90.0, images: Any = (10, 10), recall: Any = None, *, bad: bool = False) -> dict[str, Any]:
    by_class = {"images": list(images), "recall": list(recall or [accuracy, accuracy])}
    if bad:
        accuracy, by_class["recall"] = 50.0, [100.0, 0.0]
    names = {"classes": ["<b>x</b>", "a|b"]}
    return {"accuracy": accuracy, "best_accuracy": accuracy, "collapsed": bad, "images": names, "by_class": by_class}


def comparison(seeds: int = 2, **changed: dict[int, dict[str, Any]]) -> Comparison:
    results = {
        cell: {seed: result(92.0 if cell.role == "teacher" else 90.0) for seed in range(seeds)} for cell in CELLS
    }
    for name, some in changed.items():
        results[globals()[name]] |= some
    accuracies = {cell: [one["accuracy"] for one in some.values()] for cell, some in results.items()}
    return Comparison(
        "[red]title", Table("compare", "", (PAIR,)), accuracies, accuracies, tuple(range(seeds)), None, results
    )


def test_sound_networks_leave_table_and_verdict_as_they_are() -> None:
    found = comparison()
    assert found.warnings == []
    assert found.record()["warnings"] == []
    assert found.rows()[1][1] == "92.00 ± 0.00"
    assert found.verdict() == [
        "With KD, s scored the same with both teachers (higher in 0 of 2 seeds; no significant difference, paired "
        "t-test, p = 1.00); it ended level with the student alone."
    ]


def test_nothing_is_concluded_from_students_that_collapsed() -> None:
    bad = dict.fromkeys(range(2), result(bad=True))
    found = comparison(LONELY=bad, TAUGHT=bad, BEFRIENDED=bad)
    (verdict,) = found.verdict()
    assert verdict == (
        f"With KD, s: nothing can be concluded, because the student of the standard teacher {SAME} (in all 2 seeds); "
        f"the student of the student-friendly teacher {SAME} (in all 2 seeds)."
    )
    assert found.record()["warnings"][0].startswith(f"The student s alone {SAME} (in all 2 seeds) and never recognises")
    assert [row[1] for row in found.rows()[2:]] == ["50.00 ± 0.00 ¹", "50.00 ± 0.00 ²"]
    assert found.rows()[3][2] == "50.00 ± 0.00 ³"


def test_one_seed_of_five_that_collapsed_is_named_in_table_verdict_and_files() -> None:
    found = comparison(5, BEFRIENDED={3: result(bad=True)})
    (verdict,) = found.verdict()
    assert verdict.startswith("With KD, s scored 8.00 points lower")
    assert f" But the student of the student-friendly teacher {SAME} (in 1 of 5 seeds: 3); " in verdict
    (warning,) = found.warnings
    note = (
        f"The student s with kd from the student-friendly teacher {SAME} (in 1 of 5 seeds: 3) and never recognises a|b "
    )
    assert warning == f"¹ {note}(in 1 of 5 seeds: 3)."
    assert found.rows()[3][2] == "82.00 ± 17.89 ¹"
    for text in (str(found), found._repr_html_()):
        assert warning.replace("<", "&lt;") in text
    assert "> ¹ The student s with kd" in found.markdown()
    assert "never recognises a\\|b (in 1 of 5 seeds: 3" in found.markdown()
    row = next(one for one in found.record()["rows"] if one["way"] == FRIENDLY and one["role"] == "student")
    assert row["collapsed"] == [False, False, False, True, False]
    assert row["recall"][3] == (100.0, 0.0)
    assert row["balanced_accuracy"][3] == 50.0


def test_a_teacher_below_its_student_is_named() -> None:
    found = comparison(TEACHER=dict.fromkeys(range(2), result(80.0)))
    assert found.warnings == ["¹ The standard teacher t scored below s alone (80.00 % against 90.00 %)."]
    assert found.verdict()[0].endswith("But the standard teacher scored below s alone (80.00 % against 90.00 %).")
    assert found.rows()[1][1] == "80.00 ± 0.00 ¹"


def test_a_teacher_by_chance_is_named() -> None:
    found = comparison(1, FRIEND={0: result(54.0)})
    assert "the student-friendly teacher is hardly better than chance" in found.verdict()[0]


def test_unequal_classes_show_balanced_accuracy_and_the_recall_of_the_smallest() -> None:
    some = dict.fromkeys(range(2), result(95.0, (19, 1), (100.0, 0.0)))
    rows = comparison(**dict.fromkeys(("TEACHER", "FRIEND", "LONELY", "TAUGHT", "BEFRIENDED"), some)).rows()
    assert [row[0] for row in rows[1:5]] == [
        "teacher t itself",
        "  balanced accuracy",
        "  recall of a|b",
        "  recall of <b>x</b>",
    ]
    assert rows[2][1:] == ("50.00 ± 0.00", "50.00 ± 0.00", "+0.00 ± 0.00")
    assert rows[3][1] == "0.00 ± 0.00"


def test_equal_classes_need_no_more_rows() -> None:
    assert len(comparison().rows()) == 4


def test_settings_have_the_names_that_readers_know() -> None:
    cell = Cell(PAIR, "teacher", FRIENDLY, "-", "light")
    found = CellDoubts({cell: {0: result(bad=True)}}, {"light": "λ = 0.3"})
    assert found.notes[0].startswith("The student-friendly teacher (λ = 0.3) t gives")
    assert found.mark(cell) == " ¹"
    assert found.mark(TEACHER) == ""


@pytest.mark.parametrize(("number", "mark"), [(9, "⁹"), (10, "¹⁰")])
def test_marks_count_on(number: int, mark: str) -> None:
    cells = [Cell(PAIR, "student", STANDARD, f"m{n}") for n in range(number)]
    found = CellDoubts({cell: {0: result(bad=True)} for cell in cells})
    assert found.mark(cells[-1]) == f" {mark}"
