"""Runs side by side end as they do one by one, whatever befalls the processes."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sftn.data.load import load
from sftn.errors import Diverged, InputError
from sftn.experiments import workers
from sftn.experiments.grid import Conditions, Planned, grid
from sftn.experiments.queue import work
from sftn.experiments.table import Pair, Table
from sftn.experiments.workers import Workers, settle_jobs
from sftn.runtime.cores import free_memory, usable_cores
from sftn.spec.execution import Execution
from sftn.spec.jobs import Compare, asked
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule
from tests.support.run_files import left

IMAGES = load("digits", limit=40)
DATA = Data("digits", IMAGES.identity, 40)


def planned(epochs: int = 2, methods: tuple[str, ...] = ("kd",)) -> list[Planned]:
    table = Table("t", "t", (Pair("wrn_10_1", "resnet8"),), methods=methods)
    return grid(table, Conditions(DATA, Schedule(epochs=epochs, batch=20), "float32"), 1)


def child_processes() -> list[int]:
    """The workers of this process."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "sftn.experiments.workers" in line]


def test_each_run_has_the_bits_it_has_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sftn")
    runs = planned(methods=("kd", "at", "sskd"))
    titles: list[str] = []

    class Watched:
        def __init__(self, title: str) -> None:
            titles.append(title)

        def __enter__(self) -> Any:
            return None

        def __exit__(self, *_: object) -> None: ...

    work(runs, IMAGES, tmp_path / "two", Execution(jobs="2", device="cpu"), watch=Watched)
    assert len([line for line in caplog.messages if re.match(r" *\d+/9 ", line)]) == 9
    assert len(titles) < 9, "students of one teacher are trained together"
    assert not child_processes()
    work(runs, IMAGES, tmp_path / "one", Execution(jobs="1", cohort=1, device="cpu", teacher_cache=0.0))
    for item in runs:
        assert left(tmp_path / "two", item.run) == left(tmp_path / "one", item.run), item.title


class Killed:
    """A callback that kills the worker that is watched, once."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def __call__(self, title: str) -> Killed:
        return self

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        if self.times:
            self.times -= 1
            os.kill(child_processes()[-1], signal.SIGKILL)

    def step(self, step: int) -> None: ...

    def epoch(self, row: Any) -> None: ...


def test_a_run_whose_worker_died_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = planned()[:2]
    work(runs, IMAGES, tmp_path, Execution(jobs="2", device="cpu"), watch=Killed())
    assert all((tmp_path / item.run.folder / "result.json").exists() for item in runs)
    assert any("killed by SIGKILL" in line and "resumes" in line for line in caplog.messages)


def test_a_run_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="died 3 times"):
        work(planned(epochs=50)[:1], IMAGES, tmp_path, Execution(jobs="2", device="cpu"), watch=Killed(9))
    assert not child_processes()


def test_what_is_wrong_for_one_run_lets_the_other_end(tmp_path: Path) -> None:
    first, second = planned()[:2]
    (tmp_path / first.run.folder).mkdir(parents=True)
    (tmp_path / first.run.folder / "run.json").write_text("nonsense")
    with pytest.raises(InputError, match=re.escape(first.run.folder)):
        work([first, second], IMAGES, tmp_path, Execution(jobs="2", device="cpu"))
    assert (tmp_path / second.run.folder / "result.json").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_all_are_at_and_the_same_command_resumes(sent: signal.Signals, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sftn.cli",
        "compare",
        "--teacher",
        "wrn_10_1",
        "--student",
        "resnet8",
        "--seeds",
        "1",
    ]
    command += ["--limit", "40", "--batch", "20", "--precision", "float32", "--jobs", "2", "--out", str(tmp_path)]
    command += ["--checkpoint-seconds", "1000"]
    started = subprocess.Popen(
        [*command, "--epochs", "4000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while sum(bool(path.read_text()) for path in tmp_path.rglob("log.jsonl")) < 2:
        assert time.monotonic() < deadline and started.poll() is None  # noqa: PT018
        time.sleep(0.05)
    started.send_signal(sent)
    _, err = started.communicate(timeout=60)
    assert started.returncode == (143 if sent == signal.SIGTERM else 130), err
    assert err.count("\n") == 1, err
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 2


def test_images_travel_in_files_and_arrive_as_they_were(tmp_path: Path) -> None:
    with Workers(IMAGES, tmp_path, Execution(), 1) as pool:
        assert len(pool._sent) < IMAGES.train.images.nbytes + IMAGES.test.images.nbytes
        dataset, out, execution = workers._Unpickler(io.BytesIO(pool._sent)).load()
        assert dataset.identity == IMAGES.identity
        assert (out, execution.jobs, execution.threads) == (tmp_path, "1", "1")


def test_errors_come_back_from_a_worker_as_they_are() -> None:
    error = pickle.loads(pickle.dumps(Diverged("loss nan", {"epoch": 3})))
    assert (str(error), error.record) == ("loss nan", {"epoch": 3})
    assert str(pickle.loads(pickle.dumps(InputError("a\x1bb")))) == "a\\x1bb"


def runs_of(network: str) -> list[Run]:
    return [Run(network, DATA, seed, Schedule(epochs=1, batch=20), "float32") for seed in range(8)]


@pytest.mark.usefixtures("tiny_networks")
def test_as_many_jobs_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    monkeypatch.setattr(workers, "free_memory", lambda: 3 * workers.NEEDED)
    assert settle_jobs(Execution(), runs_of("resnet8"), "cpu") == 3
    assert settle_jobs(Execution(), runs_of("resnet8")[:2], "cpu") == 2
    assert settle_jobs(Execution(threads="2"), runs_of("resnet8"), "cpu") == 2
    assert settle_jobs(Execution(threads="8"), runs_of("resnet8"), "cpu") == 1
    assert settle_jobs(asked(Compare, {"jobs": 2}).execution, runs_of("resnet8"), "cpu") == 2
    assert settle_jobs(Execution(), runs_of("resnet8"), "cuda") == 1
    assert settle_jobs(Execution(devices=2), runs_of("resnet8"), "cpu") == 1
    assert settle_jobs(Execution(), runs_of("tiny"), "cpu") == 1
    assert settle_jobs(Execution(jobs="2"), runs_of("resnet8"), "cpu") == 2
    for jobs, network, words in (
        ("0", "resnet8", "at least 1"),
        ("-1", "resnet8", "at least 1"),
        ("many", "resnet8", "or auto"),
        ("4", "resnet8", "memory for 3"),
        ("2", "tiny", "the network tiny is known to this process alone"),
    ):
        with pytest.raises(InputError, match=words):
            settle_jobs(Execution(jobs=jobs), runs_of(network), "cpu")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "garbage"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_cores_are_those_of_the_mask_and_the_container(
    files: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    own = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == min(own, cores or own)


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    assert free_memory(tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max")
    whole = free_memory(tmp_path)
    assert whole is None or whole > 600_000
