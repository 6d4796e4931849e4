from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sftn.experiments.compare
import sftn.experiments.queue
import sftn.runs.cohort
from sftn.data.loader import Loader
from sftn.errors import Diverged, InputError, Stopped
from sftn.experiments.grid import Conditions, grid
from sftn.experiments.table import Pair, Table
from sftn.networks.staged import StagedNet
from sftn.runs.cohort import company, joins, size, train_together
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lease
from sftn.tasks.recipes import objective
from tests.support import tiny
from tests.support.interruptions import Bomb, crash, interrupt, terminate
from tests.support.run_files import left

pytestmark = pytest.mark.usefixtures("tiny_networks")
METHODS = ("kd", "fitnet", "crd+kd", "vid", "at", "ab", "oh")


def taught(out: Path, seed: int = 0) -> Run:
    """A trained teacher."""
    data = tiny.dataset()
    teacher = tiny.run(data, "wide", epochs=1, seed=seed)
    train(teacher, data, out)
    return teacher


def students(teacher: Run, *methods: str, **changes: Any) -> list[Run]:
    data = tiny.dataset()
    return [tiny.run(data, teacher=teacher, objective=objective(method), **changes) for method in methods]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where runs were trained one at a time; a missing one is trained when a test first needs it."""
    out = tmp_path_factory.mktemp("alone")

    def one(run: Run) -> tuple[Any, ...]:
        if isinstance(run.teacher, Run):
            train(run.teacher, tiny.dataset(), out)
        train(run, tiny.dataset(), out)
        return left(out, run)

    return one


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_each_of_a_cohort_ends_with_the_bits_it_has_alone(
    precision: str, alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Methods with and without a first stage, other rates, another length, another student; the teacher asked once."""
    teacher = taught(tmp_path)
    methods = METHODS if precision == "float32" else ("kd", "at", "crd+kd", "ab", "oh")
    runs = students(teacher, *methods, precision=precision)
    runs.append(replace(runs[0], schedule=replace(runs[0].schedule, lr=0.02, epochs=3)))
    runs.append(replace(runs[2], network="wide"))
    runs.append(replace(runs[1], on_nan="skip"))
    asked: list[int] = []
    batches: list[int] = []
    original, epoch = StagedNet.activations, Loader.epoch

    def activations(self: StagedNet, images: torch.Tensor) -> Any:
        if len(images) == 16 and not any(module.training for module in self.modules()):  # no evaluation has so few
            asked.append(id(self))
        return original(self, images)

    def counted(self: Loader, *args: Any, **kwargs: Any) -> Any:
        for batch in epoch(self, *args, **kwargs):
            batches.append(len(batch.images))
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(StagedNet, "activations", activations)
        patch.setattr(Loader, "epoch", counted)
        found = train_together(runs, tiny.dataset(), tmp_path)
    assert len({run.id for run in runs}) == len(methods) + 3
    for run, record in zip(runs, found):
        assert isinstance(record, dict)
        assert record["id"] == run.id
        assert left(tmp_path, run) == alone(run), run.name
    steps = 3
    oh, ab = 2 * steps, steps
    assert len(asked) == 3 * steps + oh + ab, "once for each batch, but by OH and in AB's first stage"
    assert len(batches) == 3 * steps + ab


@pytest.mark.parametrize("where", ["at the same step", "apart"])
def test_a_cohort_that_was_stopped_goes_on_to_the_same_bits(where: str, alone: Any, tmp_path: Path) -> None:
    """By signals, by an error in the middle of a step, and in AB's first stage too; then it resumes."""
    data = tiny.dataset()
    runs = students(taught(tmp_path), "kd", "ab", "crd", epochs=3)
    if where == "apart":  # one has a start
        with pytest.raises(Stopped):
            train(runs[0], data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(4, terminate))
    for at, act, error in (
        (2, interrupt, Stopped),
        (6, terminate, Stopped),
        (2, crash, ConnectionError),
        (5, crash, ConnectionError),
    ):
        with pytest.raises(error):
            train_together(runs, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(at, act))
        assert not all((tmp_path / run.folder / "result.json").exists() for run in runs)
    train_together(runs, data, tmp_path)
    for run in runs:
        assert left(tmp_path, run) == alone(run), run.name


def test_one_that_diverges_leaves_and_the_others_go_on(alone: Any, tmp_path: Path) -> None:
    data = tiny.dataset()
    teacher = taught(tmp_path)
    good, other = students(teacher, "kd", "at")
    bad = replace(other, schedule=replace(other.schedule, lr=1e18))
    again = replace(bad, on_nan="restart", schedule=replace(other.schedule, lr=1e12))
    found = train_together([good, bad, again, other], data, tmp_path)
    assert [type(outcome) for outcome in found] == [dict, Diverged, Diverged, dict]
    for run in (good, other):
        assert left(tmp_path, run) == alone(run)
    for run, error in ((bad, found[1]), (again, found[2])):
        assert isinstance(error, Diverged)
        told = (tmp_path / run.folder / "diverged.json").read_text()
        (tmp_path / run.folder / "diverged.json").unlink()
        for path in (tmp_path / run.folder).glob("checkpoint*"):
            path.unlink()
        with pytest.raises(Diverged) as alone_error:
            train(run, data, tmp_path)
        assert str(alone_error.value) == str(error)
        assert (tmp_path / run.folder / "diverged.json").read_text() == told
    assert json.loads(told)["restarts"], "it had begun again"


def test_one_that_another_process_has_is_left_to_it(alone: Any, tmp_path: Path) -> None:
    data = tiny.dataset()
    one, two = students(taught(tmp_path), "kd", "at")
    RunFolder(tmp_path / one.folder).write(one)
    with Lease(tmp_path / one.folder):
        held, done = train_together([one, two], data, tmp_path)
    assert isinstance(held, Held)
    assert isinstance(done, dict)
    assert left(tmp_path, two) == alone(two)
    again = train_together([one, two], data, tmp_path)
    assert again[1] == done
    assert left(tmp_path, one) == alone(one)


def test_who_can_go_together() -> None:
    data = tiny.dataset()
    teacher, other = tiny.run(data, "wide"), tiny.run(data, "wide", seed=1)
    kd, at, sskd, crd = students(teacher, "kd", "at", "sskd", "crd")
    faster = replace(at, schedule=replace(at.schedule, lr=1.0, epochs=7))
    apart = [
        sskd,
        teacher,
        replace(at, teacher=other),
        replace(at, seed=1),
        replace(at, precision="bf16"),
        replace(at, schedule=replace(at.schedule, batch=8)),
        replace(at, norm_shares=2),
    ]
    assert company([kd, *apart, at, faster, crd], 9) == [kd, at, faster, crd]
    assert company([kd, *apart, at, faster, crd], 3) == [kd, at, faster]
    assert company([kd, at], 1) == [kd]
    assert company([sskd, kd, at], 9) == [sskd]
    assert not joins(teacher)
    with pytest.raises(InputError, match="differ in teacher, data, seed"):
        train_together([kd, replace(at, seed=1)], data, Path("nowhere"))


def test_several_processes_train_no_cohort(caplog: pytest.LogCaptureFixture) -> None:
    runs = students(tiny.run(tiny.dataset(), "wide"), "kd", "at")
    caplog.set_level("INFO")
    assert size(Execution(cohort=8), runs) == 8
    assert size(Execution(cohort=8, devices=2), runs[:1]) == 1
    assert caplog.messages == []
    assert size(Execution(cohort=8, nodes=2), runs) == 1
    assert caplog.messages == ["2 processes train one student after the other: a cohort needs a single process"]
    with pytest.raises(InputError, match="cohort is 0"):
        size(Execution(cohort=0), runs)


def test_the_queue_trains_students_of_one_teacher_together(
    alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.dataset()
    table = Table("t", "t", (Pair("wide", "tiny"),), methods=("kd", "at", "vid"))
    conditions = Conditions.of(tiny.run(data, "tiny"))
    planned = grid(table, conditions, 1)
    groups: list[list[str]] = []
    ways = ("standard", "friendly")

    def noted(runs: list[Run], *args: Any, **kwargs: Any) -> Any:
        groups.append([run.name for run in runs])
        return train_together(runs, *args, **kwargs)

    monkeypatch.setattr(sftn.runs.cohort, "train_together", noted)
    sftn.experiments.queue.work(planned, data, tmp_path, Execution(cohort=2))
    students = [item for item in planned if item.cell.method != "-"]
    names = {way: [item.run.name for item in students if item.cell.way == way] for way in ways}
    assert groups == [names[way][:2] for way in ways], "the third one is left over"
    for item in students:
        assert left(tmp_path, item.run) == alone(item.run), item.run.name
