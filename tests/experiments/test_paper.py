"""The declarations of the paper's tables, held against its printed numbers and against each other."""

from __future__ import annotations

import statistics

import pytest

from sftn.errors import InputError
from sftn.experiments.grid import Conditions, grid, part, smoke
from sftn.experiments.paper import TABLES, table
from sftn.experiments.paper.published import accuracies, rows
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair, Table
from sftn.networks import NETWORKS, build
from sftn.spec.run import Data, Friendly, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.recipes import OBJECTIVES, SCHEDULES, SLOW_LEARNERS, objective
from sftn.tasks.student_branches import StudentBranches

GRIDS = [entry for entry in TABLES.values() if isinstance(entry, Table) and entry.published]
PAPER = Conditions(Data("cifar100", "0123456789abcdef"), Schedule(), "float32")


@pytest.mark.parametrize("which", GRIDS, ids=lambda which: which.name)
def test_every_cell_has_a_printed_number_and_every_number_a_cell(which: Table) -> None:
    cells = {cell for pair in which.pairs for cell in which.cells(pair)}
    assert set(accuracies(which.published)) == cells
    assert len(rows(which.published)) == len(cells)
    assert {name for pair in which.pairs for name in (pair.teacher, pair.student)} <= set(NETWORKS)
    assert set(which.methods) <= set(OBJECTIVES)
    assert all(30 < printed.mean < 90 for printed in accuracies(which.published).values())


@pytest.mark.parametrize(
    ("name", "role", "setting", "average"),
    [
        ("table14", "student", "branch1+2", 75.39),
        ("table14", "teacher", "branch2", 75.97),
        ("table15", "student", "5", 76.91),
        ("table16", "teacher", "3", 79.62),
        ("table16", "student", "5", 76.13),
    ],
)
def test_printed_averages_are_those_of_the_text(name: str, role: str, setting: str, average: float) -> None:
    printed = accuracies(table(name).published)
    found = [value.mean for cell, value in printed.items() if (cell.role, cell.setting) == (role, setting)]
    assert len(found) == 4
    assert statistics.fmean(found) == pytest.approx(average, abs=0.006)


def test_deviations_are_kept_where_they_are_printed() -> None:
    printed = accuracies(table("table18").published)
    pair = Pair("resnet32x4", "shufflev2")
    assert str(printed[Cell(pair, "student", FRIENDLY, "oh")]) == "79.98 ± 0.27"
    assert str(printed[Cell(pair, "student", ALONE)]) == "73.21"


def test_known_faults_are_said() -> None:
    assert any("inference" in note for note in table("table15").notes)
    assert any("76.60" in note for note in table("table16").notes)
    assert any("0.70" in note for note in TABLES["table19"].notes)


@pytest.mark.parametrize(
    ("name", "teachers", "students"),
    [("table14", 42, 48), ("table15", 42, 48), ("table17", 21, 300), ("table18", 21, 297)],
)
def test_a_table_is_so_many_runs(name: str, teachers: int, students: int) -> None:
    planned = grid(table(name), PAPER, 3)
    assert len({item.run.id for item in planned}) == len(planned)
    count = sum(item.cell.role == "teacher" for item in planned)
    assert (count, len(planned) - count) == (teachers, students)


def test_seeds_come_one_after_the_other_and_teachers_first() -> None:
    planned = grid(table("table17"), PAPER, 3)
    assert [item.run.seed for item in planned] == sorted(item.run.seed for item in planned)
    seen: set[str] = set()
    for item in planned:
        assert not isinstance(item.run.teacher, Run) or item.run.teacher.id in seen
        seen.add(item.run.id)


def test_tables_share_their_runs() -> None:
    ids = {grid_.name: {item.run.id for item in grid(grid_, PAPER, 3)} for grid_ in GRIDS}
    both = Cell(Pair("resnet32x4", "shufflev2"), "student", FRIENDLY, "kd", "branch1+2")
    assert PAPER.run(table("table14"), both, 0).id in ids["table18"]
    assert len(ids["table15"] & ids["table16"]) == 3 * (2 + 4 + 4 + 4)  # all but λ = 3 and 5
    friendly = [run for run in (item.run for item in grid(table("table17"), PAPER, 3)) if run.friendly]
    assert len(friendly) == 4 * 3, "one student-friendly teacher a pair and seed"


def test_runs_are_those_of_the_other_commands() -> None:
    """As `sftn compare` makes them: the same ids, so that nothing is trained twice."""
    pair = Pair("resnet32x4", "shufflev1")
    plain = Run("resnet32x4", PAPER.data, 1, Schedule(), "float32")
    slow = Run("shufflev1", PAPER.data, 1, Schedule(lr=0.05 / 5), "float32")
    friendly = Run("resnet32x4", PAPER.data, 1, Schedule(), "float32", friendly=Friendly(student="shufflev1"))
    which = table("table18")
    assert PAPER.run(which, Cell(pair, "teacher", STANDARD), 1).id == plain.id
    assert PAPER.run(which, Cell(pair, "student", ALONE), 1).id == slow.id
    assert PAPER.run(which, Cell(pair, "teacher", FRIENDLY), 1).id == friendly.id
    distilled = PAPER.run(which, Cell(pair, "student", FRIENDLY, "crd"), 1)
    assert (distilled.teacher, distilled.objective) == (friendly, objective("crd"))


@pytest.mark.parametrize("network", ["wrn_40_2", *SLOW_LEARNERS])
def test_conditions_are_found_back_in_a_run(network: str) -> None:
    assert Conditions.of(PAPER.plain(network, 2)) == PAPER


def test_branches_1_and_2_are_all_that_the_pairs_of_table_14_have() -> None:
    for pair in table("table14").pairs:
        branches = StudentBranches(
            build(pair.teacher, 100), lambda pair=pair: build(pair.student, 100), (3, 32, 32)
        ).branches
        assert len(branches) == 2


def test_the_papers_conditions_deviate_in_nothing_and_others_say_how() -> None:
    assert PAPER.deviations(table("table17")) == []
    other = Conditions(Data("cifar100", "x", limit=5000), Schedule(epochs=30, batch=32), "bf16")
    assert other.deviations(table("table17")) == [
        "5,000 training images of 50,000",
        "30 epochs instead of 240",
        "batch 32 instead of 64",
    ]
    digits = Conditions(Data("digits", "x"), Schedule(), "bf16")
    assert digits.deviations(table("table17")) == ["digits instead of cifar100"]


def test_the_imagenet_experiment_is_declared_without_numbers() -> None:
    which = table("imagenet")
    assert accuracies(which.published) == {}
    cell = Cell(which.pairs[0], "student", FRIENDLY, "kd")
    conditions = Conditions(Data("imagenet", "x", stream=True), SCHEDULES[which.recipe], "bf16")
    assert conditions.deviations(which) == []
    run = conditions.run(which, cell, 0)
    assert (run.network, run.schedule.epochs, run.schedule.batch) == ("imagenet_resnet34", 100, 256)
    assert [round(run.schedule.lr_at(epoch), 9) for epoch in (29, 30, 60, 99)] == [0.1, 0.01, 0.001, 0.0001]
    assert len(grid(which, conditions, which.seeds)) == 2 + 1 + 2 * 5
    assert any("prints no numbers" in note for note in which.notes)
    small = Conditions(Data("imagenet", "x", limit=9, size=32), SCHEDULES["imagenet"], "bf16")
    assert small.deviations(which) == ["9 training images of 1,281,167", "images of 32×32"]


def test_a_part_of_a_table() -> None:
    cut, ways = part(table("table17"), ["vgg13:vgg8"], ["crd", "kd"], ["friendly"])
    assert (cut.pairs, cut.methods, ways) == ((Pair("vgg13", "vgg8"),), ("kd", "crd"), (FRIENDLY,))
    assert len(grid(cut, PAPER, 1, ways)) == 4  # the friendly teacher, the student alone and two students
    assert len(smoke(table("table16")).pairs) == 1


@pytest.mark.parametrize(
    ("pairs", "methods", "words"),
    [(["vgg13:vgg9"], [], "did you mean vgg13:vgg8"), ([], ["crdd"], "did you mean crd"), (["vgg8:vgg13"], [], "pair")],
)
def test_what_a_table_has_not_is_suggested(pairs: list[str], methods: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        part(table("table17"), pairs, methods)


def test_a_table_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match="did you mean table1"):
        table("table1")
    for name, entry in TABLES.items():
        assert name == entry.name
        assert table(name).name == name
