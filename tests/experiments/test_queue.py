from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sftn.cli import main
from sftn.errors import InputError
from sftn.experiments.grid import Conditions, Planned, grid, smoke
from sftn.experiments.queue import work
from sftn.experiments.survey import Survey
from sftn.experiments.table import METHODS, Table
from sftn.profiling.estimate import Kind, estimate
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from tests.support import tiny
from tests.support.command import called, refusal

DATA = tiny.dataset()
LINE = re.compile(r"^ *\d+/\d+  (seed \d  .*?)  .*\((.*)\)$", re.MULTILINE)
SMALL = ["--smoke", "--timing-seconds", "0", "--precision", "float32", "--device", "cpu", "--jobs", "1"]


def command(*arguments: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "sftn.cli", "reproduce", *arguments, *SMALL, "--out", str(out)]


def contents(out: Path) -> Iterator[tuple[str, str, object]]:
    """What finished runs left, less what a clock wrote."""
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        yield folder.name, "files", sorted(path.name for path in folder.iterdir())
        yield folder.name, "weights", (folder / "weights.safetensors").read_bytes()
        record = json.loads((folder / "result.json").read_text())
        yield folder.name, "result", {key: value for key, value in record.items() if key != "seconds"}
        for line in (folder / "log.jsonl").read_text().splitlines():
            row = json.loads(line)
            yield folder.name, "row", {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}


def tiny_grid(which: Table, seeds: int = 1, epochs: int = 1) -> list[Planned]:
    """A table's runs on the networks and images of these tests."""
    own = replace(smoke(which), pairs=(replace(smoke(which).pairs[0], teacher="wide", student="tiny"),))
    return grid(own, Conditions.of(tiny.run(DATA, epochs=epochs)), seeds)


TABLE = Table(
    "table0", "a small one", "A.0", smoke(Table("", "", "", (), "")).pairs, "table17_homogeneous.csv", ("kd",)
)


def test_the_smoke_test_walks_the_whole_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path)
    began = time.monotonic()
    run = ["reproduce", "table17", *SMALL, "--seeds", "1", "--out", out]
    code, said, err = called(*run, capsys=capsys)
    assert (code, err) == (0, "")
    assert "NOT the paper's conditions" in said
    made = dict(LINE.findall(said))
    assert len(made) == 2 + 1 + 2 * len(METHODS) == 27
    for method in METHODS:
        for teacher in ("wrn_10_1", "wrn_10_1-for-resnet8"):
            assert f"seed 0  resnet8-{method}-from-{teacher}" in made
    code, said, err = called(*run, capsys=capsys)
    assert (code, err) == (0, "")
    assert set(dict(LINE.findall(said)).values()) == {"was there"}
    code, said, err = called("report", "table17", "--out", out, capsys=capsys)
    assert (code, err) == (0, "")
    assert "SMOKE TEST" in said
    page = (tmp_path / "report-table17" / "report.html").read_text()
    assert all(f"<td>{method}</td>" in page for method in METHODS)
    assert "not run" not in page
    assert time.monotonic() - began < 120


def test_the_plan_alone_trains_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said, err = called("reproduce", "table14", "--smoke", "--dry-run", "--out", str(tmp_path), capsys=capsys)
    assert (code, err) == (0, "")
    assert re.search(r"teachers\D+8\D+0\D+0\D+8", said)
    assert re.search(r"Estimated: .*kinds of run timed", said)
    assert "resnet8x2" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["table71"], "table17"),
        (["table17", "--pairs", "vgg13:vgg9"], "vgg13:vgg8"),
        (["table14", "--methods", "crd"], "unknown method of table14"),
        (["table17", "--teachers", "kind"], "teachers"),
        (["table17", "--seeds", "0"], "seeds"),
        (["table17", "--lr", "0.1"], "lr"),
        (["table17", "--smoke", "--pairs", "vgg13:vgg8"], "--smoke"),
        (["table17", "--smoke", "--recipe", "short"], "--smoke"),
        (["table17", "--data", "digits", "--recipe", "tiny"], "recipe"),
        (["table17", "--data", "digits", "--batch", "5000"], "batch"),
    ],
)
def test_contradictions_are_one_line(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert word in refusal("reproduce", *arguments, "--out", str(tmp_path), capsys=capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny_networks")
def test_a_damaged_result_stops_the_plan_and_stays(tmp_path: Path) -> None:
    planned = tiny_grid(TABLE)
    work(planned, DATA, tmp_path)
    assert Survey.of(planned, tmp_path).runs(None) == []
    path = tmp_path / planned[0].run.folder / "result.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="another run or format"):
        Survey.of(planned, tmp_path).check()
    assert path.read_text() == "{}"


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_full_disk_is_said_and_what_is_done_stays(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, calls = tiny_grid(TABLE), iter(range(1, 1000))
    fsync = os.fsync

    def full(number: int) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device; free"):
            work(planned, DATA, tmp_path, Execution(checkpoint_seconds=0))
    before = {path: path.read_bytes() for path in tmp_path.glob("*/result.json")}
    work(planned, DATA, tmp_path)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(tmp_path.glob("*/result.json"))) == len(planned)
    assert not list(tmp_path.glob("*/.*.tmp"))


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_that_diverges_does_not_stop_the_others(tmp_path: Path) -> None:
    planned = tiny_grid(TABLE)
    wild = replace(planned[1].run.schedule, lr=1e30)
    friendly = replace(planned[1].run, schedule=wild)
    assert friendly.friendly is not None
    planned[1] = replace(planned[1], run=friendly)
    broken = [item for item in planned if isinstance(item.run.teacher, Run) and item.run.teacher.friendly]
    for item in broken:
        planned[planned.index(item)] = replace(item, run=replace(item.run, teacher=friendly))
    with pytest.raises(FloatingPointError, match="2 of 5 runs diverged"):
        work(planned, DATA, tmp_path)
    assert len(list(tmp_path.glob("*/result.json"))) == 3


@pytest.mark.usefixtures("tiny_networks")
def test_an_estimate_prefers_what_was_measured(tmp_path: Path) -> None:
    planned = tiny_grid(TABLE, seeds=2)
    first = [item.run for item in planned if item.run.seed == 0]
    second = [item.run for item in planned if item.run.seed == 1]
    guess = estimate(second, DATA, tmp_path, device="cpu", time_steps=lambda *_: 3600.0)
    assert guess is not None
    assert guess.hours == pytest.approx(len(second) * (1 + len(DATA.test) / len(DATA.train) / 3))
    assert "4 of 4 kinds" in guess.how  # whose friend a teacher is makes no difference to its student's cost
    assert estimate(second, DATA, tmp_path, device="cpu", budget=0.0) is None
    work(planned[: len(first)], DATA, tmp_path, Execution(device="cpu"))
    known = estimate(second, DATA, tmp_path, done=first, device="cpu", time_steps=lambda *_: 3600.0)
    assert known is not None
    assert known.hours < 0.1
    assert "4 of 4 known" in known.how
    timed = estimate(second, DATA, tmp_path, device="cpu")
    assert timed is not None
    assert 0 < timed.hours < 0.1
    assert len({Kind.of(run) for run in first}) == 4


def killed(out: Path, times: int, rng: random.Random, *arguments: str) -> int:
    """Kill a command so many times while it trains, then let it end; how often it was really killed."""
    hits = 0
    for _ in range(times):
        started = subprocess.Popen(command(*arguments, out=out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(out.glob("*"))) if out.exists() else 0
        while started.poll() is None and (len(list(out.glob("*"))) if out.exists() else 0) <= before:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.8)
        started.send_signal(signal.SIGKILL)
        hits += started.wait() == -signal.SIGKILL
    main(command(*arguments, out=out)[3:])
    return hits


def test_killed_at_random_moments_everything_ends_the_same(tmp_path: Path) -> None:
    arguments = ["table17", "--seeds", "1", "--methods", "ab", "crd", "--epochs", "2", "--checkpoint-seconds", "0"]
    assert killed(tmp_path / "killed", 3, random.Random(), *arguments) > 0
    killed(tmp_path / "whole", 0, random.Random(), *arguments)
    assert list(contents(tmp_path / "killed")) == list(contents(tmp_path / "whole"))


@pytest.mark.slow
def test_killed_ten_times_with_all_methods_everything_ends_the_same(tmp_path: Path) -> None:
    arguments = ["table17", "--seeds", "1", "--epochs", "4", "--checkpoint-seconds", "0"]
    assert killed(tmp_path / "killed", 10, random.Random(), *arguments) == 10
    killed(tmp_path / "whole", 0, random.Random(), *arguments)
    assert list(contents(tmp_path / "killed")) == list(contents(tmp_path / "whole"))


def test_two_processes_do_every_run_once(tmp_path: Path) -> None:
    arguments = command("table17", "--seeds", "2", "--methods", "kd", "--epochs", "3", out=tmp_path)
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    did = []
    for process in both:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        lines = LINE.findall(said)
        assert len({name for name, _ in lines}) == 10
        did.append({name for name, how in lines if how != "was there"})
    assert not did[0] & did[1]
    assert len(did[0] | did[1]) == 10
    assert len(list(tmp_path.glob("*/result.json"))) == 10
    assert not list(tmp_path.glob("*/lease.*"))


def test_sigterm_ends_with_143_and_holds_nothing_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command("table17", "--seeds", "1", "--methods", "kd", "--epochs", "30", out=tmp_path)
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*/log.jsonl")):
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143, err
    assert err.count("\n") == 1
    assert len(list(tmp_path.glob("*/checkpoint.safetensors"))) <= 1
    short = [*arguments[3:], "--dry-run"]
    main(short)  # the lease of the process that ended holds nothing
    assert re.search(r"students +3 +0 +0 +3", capsys.readouterr().out)


def test_whoever_wakes_up_after_its_lease_leaves_the_run_alone(tmp_path: Path) -> None:
    """A process is stopped in the middle of a run, another one finishes that, and the first one wakes up."""
    code = (
        "import sys; from sftn.storage import lease; lease.SECONDS = 1.0; from sftn.cli import main; main(sys.argv[1:])"
    )
    arguments = ["train-teacher", "--teacher", "wrn_10_1", "--standard", "--limit", "200", "--epochs", "3"]
    arguments += ["--precision", "float32", "--checkpoint-seconds", "0", "--device", "cpu"]

    whole, shared = tmp_path / "whole", tmp_path / "shared"
    every = [sys.executable, "-c", code, *arguments, "--out", str(shared)]
    sleeper = subprocess.Popen(every, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(shared.glob("*/checkpoint.safetensors")):
        assert sleeper.poll() is None
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    main([*arguments, "--out", str(shared)])
    sleeper.send_signal(signal.SIGCONT)
    _, err = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 2, err
    assert "was taken over" in err
    main([*arguments, "--out", str(whole)])
    assert list(contents(shared)) == list(contents(whole))
