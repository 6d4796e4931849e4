"""How many threads a run computes with: chosen by timing its steps, recorded, and kept at a resume."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sftn.errors import InputError
from sftn.experiments.workers import settle_jobs
from sftn.networks.fast import product_choices
from sftn.runs import cohort, threads
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runs.threads import choose
from sftn.runs.trained import verify
from sftn.runtime.device import make_fabric
from sftn.spec.execution import Execution
from sftn.spec.jobs import TrainTeacher, asked
from sftn.spec.run import Friendly, Run
from sftn.storage.json_files import read_json, write_json
from sftn.storage.tensor_files import load_tensors
from sftn.tasks.recipes import objective
from tests.support import tiny
from tests.support.interruptions import Bomb, crash

EACH_STEP = Execution(checkpoint_seconds=0.0, device="cpu")


class Machine:
    """Cores, a processor, threads and the time of a step with them, in place of those of this machine.

    The tests are as fast on a busy one: whatever number of threads is set, one computes.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cores, self.model, self.times = 2, "one", {1: 1.0, 2: 0.5}
        self.asked: list[int] = []
        self.threads = 2
        patch.setattr(torch, "get_num_threads", lambda: self.threads)
        patch.setattr(torch, "set_num_threads", self.use)
        patch.setattr(threads, "usable_cores", lambda: self.cores)
        patch.setattr(threads, "processor", lambda: self.model)
        patch.setattr(threads, "FEW_STEPS", 1)
        patch.setattr(threads, "SHORT", 0.0)
        real = threads._Trial.__call__

        def timed(trial: threads._Trial, count: int) -> float:
            real(trial, count)
            self.asked.append(count)
            return self.times[count]

        patch.setattr(threads._Trial, "__call__", timed)

    def use(self, count: int) -> None:
        """`torch.set_num_threads`."""
        self.threads = count


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tiny_networks: None) -> Machine:
    threads.warn_of_cores.cache_clear()
    return Machine(monkeypatch)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of threads."""
    return [record.message for record in caplog.records if record.name == "sftn.runs.threads"]


def timer(times: dict[int, float | list[float]]) -> tuple[Callable[[int], float], list[int]]:
    """A step's seconds by threads, in turn for a list, and the numbers that were tried."""
    left = {count: iter(each) if isinstance(each, list) else None for count, each in times.items()}
    tried: list[int] = []

    def seconds(count: int) -> float:
        tried.append(count)
        turn, each = left[count], times[count]
        return next(turn) if turn is not None else each  # type: ignore[return-value]

    return seconds, tried


@pytest.mark.parametrize(
    ("times", "cores", "best", "why"),
    [
        ({1: 1.0, 2: 14.0}, 2, 1, "2 threads take 14 times as long (another process is probably busy)"),
        ({1: 1.0, 2: 1.25}, 2, 1, "2 threads take 1.25 times as long"),
        ({1: 1.0, 2: 0.92}, 2, 1, "2 threads are only 1.09 times as fast"),
        ({1: 1.31, 2: 1.0}, 2, 2, "1.31 times as fast as 1"),
        ({1: 1.0, 4: 0.3, 8: 0.28}, 8, 4, "3.33 times as fast as 1; 8 threads are only 1.07 times as fast"),
        ({1: 1.0, 4: 0.95, 8: 0.88}, 8, 8, "1.14 times as fast as 1"),
        ({1: 1.0, 4: 0.25, 8: 5.0}, 8, 4, "4.00 times as fast as 1; 8 threads take 20 times as long (another"),
        ({1: 1.0, 1 + 0: 1.0, 3: 0.5}, 3, 3, "2.00 times as fast as 1"),
    ],
)
def test_fewer_threads_unless_more_gain_a_tenth(times: dict[int, float], cores: int, best: int, why: str) -> None:
    found, words = choose(timer(dict(times))[0], cores, steps=1000)
    assert found == best
    assert words.startswith(why)


def test_what_has_collapsed_costs_one_step_and_nothing_larger_is_tried() -> None:
    seconds, tried = timer({1: 0.1, 4: 2.2, 8: 0.05})
    assert choose(seconds, 8, steps=1000)[0] == 1
    assert tried == [1] * 6 + [4]


def test_the_first_step_with_a_number_prepares_kernels_and_does_not_count() -> None:
    seconds, tried = timer({1: [9.0, 0.4, 0.4, 0.4], 2: [0.9, 0.2, 0.2, 0.2, 0.2]})
    assert choose(seconds, 2, steps=1000)[0] == 2
    assert tried == [1, 1, 2, 2]  # no further step begins after a second


def test_a_short_run_gets_one_thread() -> None:
    seconds, tried = timer({1: 0.01, 2: 0.001})
    assert choose(seconds, 2, steps=1000) == (1, "the run takes about 10 s, too short to try more")
    assert set(tried) == {1}


def runs(kind: str, out: Path) -> Run:
    """A run; its teacher is trained on the way."""
    data = tiny.dataset()
    teacher = tiny.run(data, "wide", epochs=1)
    if kind == "friendly":
        return tiny.run(data, "wide", friendly=Friendly(student="tiny"))
    train(teacher, data, out, Execution(threads="1", device="cpu"))
    return tiny.run(data, teacher=teacher, objective=objective(kind))


@pytest.mark.parametrize(
    ("kind", "precision", "fast"), [("friendly", "float32", False), ("crd", "bf16", True), ("sskd", "float32", True)]
)
def test_a_trial_leaves_no_trace(
    kind: str, precision: str, fast: bool, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose threads were tried has the bits of one with the same fixed number; nor is a convolution measured."""
    data = tiny.dataset()
    measured: list[int] = []
    table = product_choices.Table("here", None, lambda layer: "")
    monkeypatch.setattr(product_choices, "_table", lambda count: (measured.append(count), table)[1])
    for out, count in (("tried", "auto"), ("fixed", "2")):
        run = runs(kind, tmp_path / out)
        found = train(run, data, tmp_path / out, Execution(threads=count, fast_float32=fast, device="cpu"))
        assert found["environment"]["threads"] == 2
        assert torch.get_num_threads() == 2
    assert machine.asked == [1, 1, 2, 2]
    assert tiny.weights(tmp_path / "tried", run) == tiny.weights(tmp_path / "fixed", run)
    assert set(measured) <= {1, 2}
    assert measured.count(2) == 2  # the tried run's own choices, and the fixed one's: the trial asks no table


@pytest.mark.usefixtures("tiny_networks")
def test_a_real_trial_chooses_what_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By this machine's clock, with threads of its own, whichever number that favours today."""
    for name, value in (("usable_cores", lambda: 2), ("FEW_STEPS", 1), ("SHORT", 0.0)):
        monkeypatch.setattr(threads, name, value)
    data, run, before = tiny.dataset(), tiny.run(tiny.dataset()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        count = train(run, data, tmp_path / "tried", Execution(device="cpu"))["environment"]["threads"]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert count in (1, 2)
    train(run, data, tmp_path / "fixed", Execution(threads=str(count), device="cpu"))
    assert torch.get_num_threads() == before
    assert tiny.weights(tmp_path / "tried", run) == tiny.weights(tmp_path / "fixed", run)


def test_a_trial_changes_no_random_state(machine: Machine, tmp_path: Path) -> None:
    data, fabric = tiny.dataset(), make_fabric("cpu", "float32")
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    settled = threads.settle_threads(tiny.run(data), data, tmp_path, None, fabric)
    assert machine.asked
    assert settled == (2, "one", 2)
    assert torch.equal(torch.get_rng_state(), expected)
    assert not list(tmp_path.iterdir())


def test_a_resume_goes_on_as_it_began(machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sftn.runs.threads")
    caplog.clear()
    data, run = tiny.dataset(), tiny.run(tiny.dataset())
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, EACH_STEP, callback=Bomb(2, crash))
    _, record = load_tensors(tmp_path / run.folder / "checkpoint.safetensors")
    assert record["threads"] == {"number": 2, "processor": "one", "cores": 2}
    assert said(caplog) == ["2 threads: 2.00 times as fast as 1"]
    machine.times, machine.asked = {1: 1.0, 2: 50.0}, []
    assert train(run, data, tmp_path, EACH_STEP)["environment"]["threads"] == 2
    assert not machine.asked
    assert said(caplog)[1:] == ["2 threads, as it began"]
    train(run, data, tmp_path / "fixed", Execution(threads="2", device="cpu"))
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "fixed", run)


@pytest.mark.parametrize(("model", "cores"), [("other", 2), ("one", 4)])
def test_on_another_machine_a_resume_asks_again_and_says_so(
    model: str, cores: int, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run = tiny.dataset(), tiny.run(tiny.dataset())
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, EACH_STEP, callback=Bomb(2, crash))
    machine.model, machine.cores, machine.times = model, cores, {1: 1.0, 2: 3.0}
    caplog.set_level(logging.INFO, "sftn.runs.threads")
    caplog.clear()
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, EACH_STEP, callback=Bomb(2, crash))
    assert said(caplog) == [
        f"tiny began on another machine (one, 2 cores; here {model}, {cores} cores): its threads are chosen again, and "
        "its last bits may differ",
        "1 thread: 2 threads take 3.00 times as long (another process is probably busy)",
    ]
    _, record = load_tensors(tmp_path / run.folder / "checkpoint.safetensors")
    assert record["threads"] == {"number": 1, "processor": model, "cores": cores}


@pytest.mark.parametrize("record", [None, 3, {"number": 0}, {"number": 2, "processor": "one", "cores": "2"}])
def test_a_checkpoint_that_says_nothing_of_use_asks_again(
    record: object, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tiny.dataset(), tiny.run(tiny.dataset())
    monkeypatch.setattr(threads, "recorded", lambda folder: {} if record is None else {"threads": record})
    assert train(run, data, tmp_path, EACH_STEP)["environment"]["threads"] == 2
    assert machine.asked


def test_other_threads_than_at_the_beginning_are_told_of(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run = tiny.dataset(), tiny.run(tiny.dataset())
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, EACH_STEP, callback=Bomb(2, crash))
    caplog.clear()
    result = train(run, data, tmp_path, Execution(threads="1", device="cpu"))
    assert result["environment"]["threads"] == 1
    assert said(caplog) == ["tiny began with 2 threads and goes on with 1: its last bits may differ"]


def test_a_cohort_has_one_number_of_threads(machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sftn.runs.threads")
    data, student = tiny.dataset(), runs("kd", tmp_path)
    members = [student, tiny.run(data, epochs=3, teacher=student.teacher, objective=objective("at"))]
    machine.asked = []
    found = cohort.train_together(members, data, tmp_path, Execution(device="cpu"))
    assert [each["environment"]["threads"] for each in found if isinstance(each, dict)] == [2, 2]
    assert len(machine.asked) == 4  # one trial, two steps each: its clock takes a second for a step
    assert said(caplog) == ["2 threads: 2.00 times as fast as 1"]


def test_more_threads_than_cores_are_done_with_a_line(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny.dataset()
    for seed in (0, 1):
        found = train(tiny.run(data, epochs=1, seed=seed), data, tmp_path, Execution(threads="3", device="cpu"))
        assert found["environment"]["threads"] == 3
    assert said(caplog) == ["3 threads on 2 cores wait for each other: --threads auto is faster"]


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "many", "", "1025", "9" * 400, "²"])
def test_a_wrong_number_is_said_before_anything_is_written(wrong: str, tmp_path: Path) -> None:
    data = tiny.dataset()
    execution = Execution(threads=wrong)
    with pytest.raises(InputError, match="1 to 1024, or auto"):
        train(tiny.run(data), data, tmp_path, execution)
    with pytest.raises(InputError, match="1 to 1024, or auto"):
        cohort.train_together([tiny.run(data)], data, tmp_path, execution)
    with pytest.raises(InputError, match="1 to 1024, or auto"):
        settle_jobs(execution, [tiny.run(data)], "cpu")
    assert not list(tmp_path.iterdir())


def test_a_number_from_python_is_one() -> None:
    assert asked(TrainTeacher, {"teacher": "resnet8", "threads": 2}).execution.thread_count == 2


def test_verify_computes_with_the_recorded_threads(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tiny.dataset(), tiny.run(tiny.dataset())
    train(run, data, tmp_path, Execution(threads="1", device="cpu"))
    seen: list[int] = []
    monkeypatch.setattr(
        "sftn.runs.trained.evaluate", lambda *_: (seen.append(torch.get_num_threads()), {"accuracy": found})[1]
    )
    folder = RunFolder(tmp_path / run.folder)
    found = read_json(folder.result_json)["accuracy"]
    assert verify(folder, data, "cpu") == []
    record = read_json(folder.result_json)
    for value in (3, 0, "2", 10**9):
        write_json(folder.result_json, record | {"environment": record["environment"] | {"threads": value}})
        assert verify(folder, data, "cpu") == []
    assert seen == [1, 3, 2, 2, 2]  # what is no number of threads is left alone
    assert torch.get_num_threads() == 2
