from __future__ import annotations

from dataclasses import replace

from sftn.spec.differences import differences, labels
from sftn.spec.objective import Objective
from sftn.spec.run import Data, Friendly, Run, Weights
from sftn.spec.schedule import Schedule

PLAIN = Run("wide", Data("digits", "0" * 16), 0, Schedule(), "bf16")
TEACHER = replace(PLAIN, friendly=Friendly(student="small"))


def test_runs_that_differ_in_the_seed_alone_have_one_label() -> None:
    assert labels([PLAIN, replace(PLAIN, seed=1)]) == ["wide", "wide"]
    assert labels([PLAIN, TEACHER]) == ["wide", "wide-for-small"]


def test_a_sweep_is_told_apart_by_what_was_varied() -> None:
    swept = [replace(TEACHER, friendly=Friendly(student="small", branch_kl=weight)) for weight in (0.3, 1.0, 3.0)]
    assert labels(swept) == [
        "wide-for-small (branch_kl 0.3)",
        "wide-for-small (branch_kl 1)",
        "wide-for-small (branch_kl 3)",
    ]
    assert differences([*swept[:1], PLAIN]) == ["", ""]


def test_what_a_teacher_was_trained_with_tells_students_apart() -> None:
    objective = Objective("kd", ce=0.1, kd=0.9)
    ours = [
        replace(PLAIN, network="small", teacher=teacher, objective=objective)
        for teacher in (replace(PLAIN, precision="float32"), PLAIN, Weights("wide", "ab" * 32, "away.pth"))
    ]
    first, second, third = differences(ours)
    assert first == second == "teacher trained here"
    assert third == "teacher's file abababab"
    first, second = differences(ours[:2])
    assert first == "teacher's precision float32"
    assert second == "teacher's precision bf16"


def test_a_setting_that_teacher_and_student_share_is_told_once() -> None:
    objective = Objective("kd", ce=0.1, kd=0.9)
    short = replace(PLAIN, schedule=Schedule(epochs=30))
    ours = [replace(one, network="small", teacher=one, objective=objective) for one in (PLAIN, short)]
    assert differences(ours) == ["epochs 240", "epochs 30"]


def test_images_and_schedules_tell_runs_apart() -> None:
    others = [
        PLAIN,
        replace(PLAIN, data=Data("digits", "1" * 16, limit=200)),
        replace(PLAIN, schedule=Schedule(epochs=30, milestones=(10, 20.5))),
    ]
    first, second, third = differences(others)
    assert first == "content 00000000, epochs 240, milestones 0.625 0.75 0.875, limit none"
    assert second == "content 11111111, limit 200, epochs 240, milestones 0.625 0.75 0.875"
    assert third == "content 00000000, epochs 30, milestones 10 20.5, limit none"
