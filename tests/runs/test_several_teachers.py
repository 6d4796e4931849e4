"""Runs with several teachers, and chains of students: records, results, resuming, cohorts, and kept outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sftn
from sftn.data.dataset import Dataset
from sftn.errors import InputError, Stopped
from sftn.experiments.grid import Planned
from sftn.experiments.queue import work
from sftn.experiments.table import ALONE, Cell, Pair
from sftn.networks.ensemble import Ensemble
from sftn.networks.staged import StagedNet
from sftn.runs import train as training
from sftn.runs.build import load_network, teacher_of
from sftn.runs.cohort import company, train_together
from sftn.runs.folder import DONE, RunFolder
from sftn.runs.runner import train
from sftn.runs.trained import verify
from sftn.spec.differences import differences
from sftn.spec.execution import Execution
from sftn.spec.jobs import Distill, asked
from sftn.spec.run import Friendly, Run
from sftn.tasks.recipes import objective
from tests.support import tiny
from tests.support.interruptions import Bomb, crash, terminate
from tests.support.run_files import left

pytestmark = pytest.mark.usefixtures("tiny_networks")
IMAGES = torch.randn(6, *tiny.IMAGE, generator=torch.Generator().manual_seed(4))
SMALL = {"epochs": 1, "batch": 16, "precision": "float32"}


def taught(out: Path, data: Dataset | None = None) -> tuple[Run, ...]:
    """A standard and a student-friendly teacher, both trained."""
    data = tiny.dataset() if data is None else data
    teachers = (tiny.run(data, "wide", epochs=1), tiny.run(data, "wide", epochs=1, friendly=Friendly(student="tiny")))
    for teacher in teachers:
        train(teacher, data, out)
    return teachers


def student(teachers: tuple[Run, ...], method: str = "kd", data: Dataset | None = None, **changes: Any) -> Run:
    first, *further = teachers
    data = tiny.dataset() if data is None else data
    return tiny.run(data, teacher=first, further=tuple(further), objective=objective(method), **changes)


def test_name_and_folder_tell_all_teachers_and_how_they_are_weighed(tmp_path: Path) -> None:
    data = tiny.dataset()
    teachers = (tiny.run(data, "wide"), tiny.run(data, "wide", friendly=Friendly(student="tiny")))
    run = student(teachers, ensemble="ca")
    assert run.name == "tiny-kd-from-wide-and-wide-for-tiny-by-ca"
    assert run.folder == f"tiny-kd-from-wide-and-wide-for-tiny-by-ca-tiny-s0-{run.id}"
    assert len({run.id, replace(run, ensemble="mean").id, replace(run, further=()).id}) == 3
    with pytest.raises(InputError, match="unknown weighting of teachers"):
        replace(run, ensemble="cb")


def test_runs_of_one_name_are_told_apart_by_their_teachers() -> None:
    data = tiny.dataset()
    teachers = [tiny.run(data, "wide", friendly=Friendly(student="tiny", branch_kl=kl)) for kl in (3.0, 0.3)]
    runs = [student((tiny.run(data, "wide"), teacher)) for teacher in teachers]
    assert differences(runs) == [f"teacher 2's branch_kl {kl}" for kl in ("3", "0.3")]


@pytest.mark.parametrize(("method", "ensemble"), [("kd", "mean"), ("crd+kd", "ca"), ("mlkd", "ca"), ("oh", "mean")])
def test_an_interrupted_run_ends_with_the_same_bits(method: str, ensemble: str, tmp_path: Path) -> None:
    data, whole, broken = tiny.dataset(), tmp_path / "whole", tmp_path / "broken"
    run = student(taught(whole), method, ensemble=ensemble)
    train(run, data, whole)
    taught(broken)
    for at, act, error in ((2, crash, ConnectionError), (3, terminate, Stopped)):
        with pytest.raises(error):
            train(run, data, broken, Execution(checkpoint_seconds=0.0), callback=Bomb(at, act))
    train(run, data, broken)
    assert tiny.weights(broken, run) == tiny.weights(whole, run)
    assert left(broken, run) == left(whole, run)


@pytest.mark.parametrize("method", ["kd", "crd+kd", "at"])
def test_kept_outputs_of_all_teachers_change_no_bit(method: str, tmp_path: Path) -> None:
    """96 images of 9 views over 12 epochs: a table for the logits of both, and each view is asked once."""
    data = tiny.dataset(96)
    kept, asked_for = tmp_path / "kept", tmp_path / "asked"
    run = student(taught(kept, data), method, data, epochs=12)
    run = replace(run, schedule=replace(run.schedule, batch=32))
    found = train(run, data, kept)
    taught(asked_for, data)
    expected = train(run, data, asked_for, Execution(teacher_cache=0.0))
    assert tiny.weights(kept, run) == tiny.weights(asked_for, run)
    assert "asked_once" not in expected
    assert ("asked_once" in found) == (method != "at")  # whose maps are not kept
    if method != "at":
        assert found["asked_once"]["looked_up"] > 0.3 * found["asked_once"]["questions"]
        other = replace(run, seed=1, ensemble="ca")
        assert train(other, data, kept)["asked_once"]["from_other_runs"] > 0  # what each teacher said is not weighed
        train(other, data, asked_for, Execution(teacher_cache=0.0))
        assert tiny.weights(kept, other) == tiny.weights(asked_for, other)
        single = replace(run, seed=2, further=())
        assert train(single, data, kept)["asked_once"]["from_other_runs"] == 0


def test_a_cohort_asks_each_teacher_once_and_ends_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, alone, together = tiny.dataset(), tmp_path / "alone", tmp_path / "together"
    teachers = taught(alone)
    taught(together)
    runs = [student(teachers), student(teachers, "at", ensemble="ca"), student(teachers, "crd+kd")]
    other = student(teachers[:1], "at")
    assert company([*runs, other], 8) == runs
    for run in runs:
        train(run, data, alone)
    count, original = [0], StagedNet.activations

    def activations(self: StagedNet, images: Any) -> Any:
        count[0] += len(images) == 16 and not self.training
        return original(self, images)

    monkeypatch.setattr(StagedNet, "activations", activations)
    train_together(runs, data, together, Execution(teacher_cache=0.0))
    assert count[0] == 2 * 3  # epochs and batches; the others give logits only
    for run in runs:
        assert tiny.weights(together, run) == tiny.weights(alone, run)


def test_a_run_waits_for_all_teachers_and_is_verified_with_them(tmp_path: Path) -> None:
    data = tiny.dataset()
    teachers = taught(tmp_path)
    run = student(teachers)
    train(run, data, tmp_path)
    folder = RunFolder(tmp_path / run.folder)
    assert folder.inspect().state == DONE
    assert verify(folder, data) == []
    assert folder.run() == run
    second = RunFolder(tmp_path / teachers[1].folder)
    second.result_json.unlink()
    assert [line for line in verify(folder, data) if second.name in line] == [
        f"its teacher {second.name} is interrupted"
    ]
    other = replace(run, seed=1)
    with pytest.raises(InputError, match=f"{teachers[1].name} is not trained yet"):
        train(other, data, tmp_path)


def test_distill_with_several_teachers_from_python(tmp_path: Path) -> None:
    data = tiny.dataset()
    teachers = [RunFolder(tmp_path / run.folder).path for run in taught(tmp_path)]
    found = sftn.distill(teachers, "tiny", data, ensemble="ca", out=tmp_path, **SMALL)
    assert [one.network for one in found.run.teachers] == ["wide", "wide"]
    assert found.run.ensemble == "ca"
    record = json.loads((found.folder / "run.json").read_text())
    assert [len(record["further"]), record["ensemble"]] == [1, "ca"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": ()}, "no teacher given"),
        ({"teacher": (0, 1, 0)}, "is given twice"),
        ({"teacher": (0,), "ensemble": "ca"}, "--ensemble ca weighs several teachers, and 1 is given"),
        ({"teacher": (0, 1), "ensemble": "median"}, "'median'"),
        ({"teacher": (0, 1), "method": "simkd"}, "simkd compares no logits"),
        ({"teacher": (0,), "generations": 0}, "generations is 0"),
        ({"teacher": (0,), "generations": 11}, "from 1 to 10"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_written(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folders = [str(tmp_path / run.folder) for run in taught(tmp_path)]
    options = options | {"teacher": tuple(folders[number] for number in options["teacher"])}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words) as caught:
        training.distill(asked(Distill, {"student": "tiny", "out": tmp_path, **SMALL, **options}), tiny.dataset())
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_generations_are_ordinary_runs_each_taught_by_the_one_before(tmp_path: Path) -> None:
    data = tiny.dataset()
    teachers = taught(tmp_path)
    folders = tuple(str(tmp_path / run.folder) for run in teachers)
    given: dict[str, Any] = {"student": "tiny", "out": tmp_path, **SMALL}
    job = asked(Distill, given | {"teacher": folders, "ensemble": "ca", "generations": 3})
    first, second, third = training.generations(job, data)
    assert first.run.teachers == teachers
    assert [second.run.teachers, third.run.teachers] == [(first.run,), (second.run,)]
    assert training.distill(job, data).run == third.run
    alone = training.distill(asked(Distill, given | {"teacher": folders, "ensemble": "ca"}), data)
    assert alone.run.id == first.run.id
    chained = training.distill(asked(Distill, given | {"teacher": str(first.folder)}), data)
    assert chained.run.id == second.run.id
    assert verify(RunFolder(third.folder), data) == []


def test_without_a_teacher_the_same_network_on_labels_alone_begins(tmp_path: Path) -> None:
    data = tiny.dataset()
    job = asked(Distill, {"student": "tiny", "out": tmp_path, "generations": 10, **SMALL})
    plain, first, *_, last = training.generations(job, data)
    assert plain.run.teacher is None
    assert first.run.teacher == plain.run
    assert last.run.name == "tiny" + 10 * "-kd-from-tiny"
    assert RunFolder(last.folder).run() == last.run  # a record of ten teachers' teachers can be read


def test_a_queue_begins_with_all_teachers_and_leaves_out_a_student_of_one_that_diverged(tmp_path: Path) -> None:
    data = tiny.dataset()
    first, second = (tiny.run(data, "wide", epochs=1, seed=seed) for seed in (0, 1))
    wild = replace(first, seed=2, schedule=replace(first.schedule, lr=1e30))
    runs = [student((first, second)), student((first, wild)), first, second, wild]
    cell = Cell(Pair("wide", "tiny"), "student", ALONE)
    with pytest.raises(FloatingPointError, match="2 of 5 runs diverged and all others are done"):
        work([Planned(cell, run) for run in runs], data, tmp_path, Execution(jobs="1"))
    done = [(tmp_path / run.folder / "result.json").exists() for run in runs]
    assert done == [True, False, True, True, False]


def test_each_teacher_is_tried_and_fitted_to_the_classes_by_itself(tmp_path: Path) -> None:
    """The second one has the classes in another order, a third one knows others."""
    data = tiny.dataset()
    first, second, third = (
        tiny.run(some, "wide", epochs=1, seed=seed)
        for seed, some in enumerate((data, replace(data, classes=tuple("badc")), replace(data, classes=tuple("abce"))))
    )
    for teacher, classes in ((first, "abcd"), (second, "badc"), (third, "abce")):
        train(teacher, replace(data, classes=tuple(classes)), tmp_path)
    given = {"student": "tiny", "out": tmp_path, **SMALL}
    folders = [str(tmp_path / run.folder) for run in (first, second, third)]
    found = training.distill(asked(Distill, given | {"teacher": folders[:2]}), data)
    record = found.result["teacher"]
    assert len(record["further"]) == 1
    assert {"accuracy", "images", "near_chance"} == record["further"][0].keys() == record.keys() - {"further"}
    own, other = (load_network(run, data, tmp_path) for run in (first, second))
    network = teacher_of(found.run, lambda source: load_network(source, data, tmp_path))
    assert isinstance(network, Ensemble)
    assert torch.equal(
        network.eval().activations(IMAGES).logits, torch.cat([own.eval()(IMAGES), other.eval()(IMAGES)], 1)
    )
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="it knows no d"):
        training.distill(asked(Distill, given | {"teacher": [folders[0], folders[2]]}), data)
    assert sorted(tmp_path.iterdir()) == before
