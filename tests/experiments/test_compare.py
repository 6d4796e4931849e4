from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sftn.errors import InputError
from sftn.experiments.compare import checked, compare, plan
from sftn.experiments.comparison import Comparison
from sftn.experiments.statistics import Doubts, spread, together, verdict
from sftn.experiments.table import ALONE, BOTH, FRIENDLY, STANDARD, Cell, Pair, Table
from sftn.spec.jobs import Compare, asked
from sftn.spec.run import Run, Weights
from sftn.storage.json_files import sha256
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
        ({"both_teachers": True, "friendly": False}, "needs the student-friendly teacher"),
        ({"ensemble": "ca"}, "add --both-teachers"),
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
    return Comparison("t <b>", Table("compare", "", (pair,)), accuracies, accuracies, tuple(range(len(alone))))


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


@pytest.mark.usefixtures("tiny_networks")
def test_several_values_of_an_option_are_rows_of_one_table(tmp_path: Path) -> None:
    job = asked(Compare, {**SMALL, "branch_kl": [0.3, 3.0], "branch_temperature": [1.0, 2.0], "out": tmp_path})
    found = compare(job, tiny.dataset())
    labels = [row[0] for row in found.rows()]
    names = [f"branch_kl {kl}, branch_temperature {t}" for kl in ("0.3", "3") for t in ("1", "2")]
    assert labels == [
        "",
        *(f"teacher wide itself, {name}" for name in names),
        "student tiny alone",
        *(f"student tiny with kd, {name}" for name in names),
    ]
    assert len({row[1] for row in found.rows() if row[0].startswith("teacher")}) == 1  # one standard teacher
    assert len(found.verdict()) == 4
    assert "With KD, tiny (branch_kl 0.3, branch_temperature 2)" in found.verdict()[1]
    rows = found.record()["rows"]
    assert {row["setting"] for row in rows if row["way"] == FRIENDLY} == set(names)
    alone = plan(asked(Compare, {**SMALL, "branch_kl": 0.3, "out": tmp_path}), tiny.dataset())
    swept = plan(job, tiny.dataset())
    assert {item.run.id for item in alone.planned} < {item.run.id for item in swept.planned}
    with pytest.raises(InputError, match="branch_kl"):
        plan(asked(Compare, {**SMALL, "branch_kl": [3.0, 3.0]}), tiny.dataset())


@pytest.mark.usefixtures("tiny_networks")
def test_both_teachers_together_are_a_further_column_and_sentence(tmp_path: Path) -> None:
    methods = ("kd", "at")
    job = asked(Compare, {**SMALL, "methods": methods, "both_teachers": True, "ensemble": "ca", "out": tmp_path})
    found = compare(job, tiny.dataset())
    planned = {item.run.id: item.run for item in plan(job, tiny.dataset()).planned}
    both = [run for run in planned.values() if run.further]
    assert [(run.seed, run.objective.name) for run in both if run.objective] == [
        (seed, method) for seed in (0, 1) for method in methods
    ]
    for run in both:
        standard, friendly = run.teachers
        assert isinstance(standard, Run)
        assert isinstance(friendly, Run)
        assert (standard.friendly, friendly) == (
            None,
            replace(standard, friendly=friendly.friendly, code=friendly.code),
        )
        assert {standard.id, friendly.id} <= planned.keys()
        assert run.ensemble == "ca"
    without = plan(asked(Compare, {**SMALL, "methods": methods, "out": tmp_path}), tiny.dataset()).planned
    assert {item.run.id for item in without} == {run.id for run in planned.values() if not run.further}
    header, teacher, alone, *taught = found.rows()
    assert header[4:] == ("both teachers",)
    assert (teacher[4], alone[4]) == ("", "")
    pair = Pair("wide", "tiny", "tiny")
    for row, method in zip(taught, methods):
        assert row[4].startswith(spread(found.accuracies[Cell(pair, "student", BOTH, method)]))
    assert len(found.verdict()) == 4
    assert "both teachers" in str(found)
    assert "| both teachers |" in found.markdown()
    with pytest.raises(InputError, match="simkd compares no logits"):
        checked(asked(Compare, {**SMALL, "methods": "simkd", "both_teachers": True}), tiny.dataset())


def test_the_sentence_on_both_teachers_falls_as_the_numbers_do() -> None:
    assert together("With KD, s", [62.0, 63.0, 64.0], [60.0, 61.0, 62.1]) == (
        "With KD, s scored 1.97 points higher when taught by both teachers together than by the standard one (higher "
        "in 3 of 3 seeds; a significant difference, paired t-test, p < 0.01)."
    )
    assert "scored the same with both as with the standard teacher" in together("With KD, s", [60.0], [60.0])
    hollow = together("With KD, s", [60.0], [60.0], Doubts(("the student alone collapsed",), True))
    assert hollow == "With KD, s: nothing can be concluded, because the student alone collapsed."


@pytest.mark.usefixtures("tiny_networks")
def test_without_the_friendly_teacher_students_are_compared_with_themselves_alone(tmp_path: Path) -> None:
    job = asked(Compare, {**SMALL, "friendly": False, "out": tmp_path})
    found = compare(job, tiny.dataset())
    assert all(item.run.friendly is None for item in plan(job, tiny.dataset()).planned)
    header, teacher, alone, taught = found.rows()
    assert header == ("", "accuracy", "over the student alone")
    assert (teacher[2], alone[2]) == ("", "")
    gaps = [
        one - own
        for one, own in zip(
            found.accuracies[Cell(Pair("wide", "tiny", "tiny"), "student", STANDARD, "kd")],
            found.accuracies[Cell(Pair("wide", "tiny", "tiny"), "student", ALONE)],
        )
    ]
    assert taught[2] == spread(gaps, sign=True)
    assert "friendly" not in f"{found} {found.markdown()}"


def sized(accuracies: dict[str, tuple[int, float, float]], within: float | None) -> Comparison:
    """A comparison of students by name, with their parameters and accuracy alone and taught; the teacher has 90 %."""
    pairs = tuple(Pair("large", student) for student in accuracies)
    table = Table("t", "", pairs, teachers=(STANDARD,))
    seen = {}
    for pair, (_, alone, taught) in zip(pairs, accuracies.values()):
        seen[Cell(pair, "teacher", STANDARD)] = [90.0, 90.0]
        seen[Cell(pair, "student", ALONE)] = [alone - 0.5, alone + 0.5]
        seen[Cell(pair, "student", STANDARD, "kd")] = [taught - 0.5, taught + 0.5]
    sizes = {pair: size for pair, (size, *_) in zip(pairs, accuracies.values())}
    results = {
        cell: {seed: {"accuracy": value, "parameters": sizes[cell.pair]} for seed, value in enumerate(values)}
        for cell, values in seen.items()
    }
    return Comparison("t", table, seen, seen, (0, 1), results=results, within=within)


def test_the_smallest_student_that_is_near_enough_is_named() -> None:
    students = {"c": (300, 80.0, 89.5), "a": (100, 85.0, 80.0), "b": (200, 80.0, 84.0)}
    found = sized(students, 6.0)
    assert [(one.student, one.below, one.front, one.how) for one in found.sizes()] == [
        ("a", 5.0, True, "alone"),
        ("b", 6.0, False, "with kd from the standard teacher"),
        ("c", 0.5, True, "with kd from the standard teacher"),
    ]
    assert found.verdict()[-1].startswith("The smallest student within 6 points of the best teacher is a (100 par")
    assert "is c (300 parameters): 0.50 points below, with kd" in sized(students, 1.0).verdict()[-1]
    assert "No student is within 0.1 points" in sized(students, 0.1).verdict()[-1]
    assert "c comes nearest, 0.50 points below" in sized(students, 0.1).verdict()[-1]
    assert len(sized(students, None).verdict()) == 3


@pytest.mark.usefixtures("tiny_networks")
def test_a_comparison_has_a_page(tmp_path: Path) -> None:
    from sftn.report.writer import report

    found = compare(asked(Compare, {**SMALL, "student": ("tiny", "wide"), "out": tmp_path}), tiny.dataset())
    assert found.folder is not None
    (page,) = report([found.folder.name], tmp_path)
    text = (page.folder / "report.md").read_text()
    assert "| student tiny with kd |" in text
    assert "Students by size" in text
    for sentence in found.verdict():
        assert sentence.split("(")[0] in text
    (found.folder / "comparison.json").write_text('{"title": "old"}')
    with pytest.raises(InputError, match="run the comparison again"):
        report([str(found.folder)], tmp_path)


@pytest.mark.usefixtures("tiny_networks")
def test_a_teacher_given_as_a_file_is_the_standard_one_and_the_friendly_one_starts_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    dataset, path = tiny.dataset(), tmp_path / "mine.pth"
    teacher = tiny.network((6, 8, 12))
    torch.save({"state_dict": {f"model.{key}": value for key, value in teacher.state_dict().items()}}, path)
    mean, std = (values.view(-1, 1, 1) for values in dataset.normalisation)
    with torch.no_grad():
        answers = teacher.eval()((dataset.test.images - mean) / std).argmax(1)
    own = 100 * float((answers == dataset.test.labels).double().mean())
    job = asked(Compare, {**SMALL, "teacher": str(path), "teacher_network": "wide", "out": tmp_path / "runs"})
    runs = {item.run.name: item.run for item in plan(job, dataset).planned}
    names = {"tiny", "wide-tuned-for-tiny", "tiny-kd-from-wide", "tiny-kd-from-wide-tuned-for-tiny"}
    assert runs.keys() == names, "the standard teacher is not trained"
    source = Weights("wide", sha256(path), str(path))
    assert runs["wide-tuned-for-tiny"].start == runs["tiny-kd-from-wide"].teacher == source
    found = compare(job, dataset)
    rows = {(cell.role, cell.way): values for cell, values in found.accuracies.items()}
    assert rows["teacher", STANDARD] == [own, own]
    assert len(rows["teacher", FRIENDLY]) == len(rows["student", STANDARD]) == 2
    assert (
        "the standard teacher is wide (mine.pth) as it is; the student-friendly one starts from it" in caplog.messages
    )
    assert compare(job, dataset) == found


@pytest.mark.usefixtures("tiny_networks")
def test_a_file_of_other_classes_gives_both_teachers_their_start(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(tiny.network((6, 8, 12), classes=9).state_dict(), path)
    job = asked(Compare, {**SMALL, "teacher": str(path), "teacher_network": "wide", "seeds": 1, "out": tmp_path})
    runs = {item.run.name: item.run for item in plan(job, tiny.dataset()).planned}
    assert runs["wide-tuned"].start == runs["wide-tuned-for-tiny"].start
    assert len(runs) == 5
    assert len(compare(job, tiny.dataset()).accuracies) == 5
    with pytest.raises(InputError, match="is not this tiny"):
        compare(
            asked(Compare, {**SMALL, "teacher": str(path), "teacher_network": "tiny", "out": tmp_path}), tiny.dataset()
        )
    with pytest.raises(InputError, match="there is no weights file at wide"):
        plan(asked(Compare, {**SMALL, "teacher_network": "wide"}), tiny.dataset())
