"""A day in the life of a grid: two workers share a folder of runs, and every few minutes one of them is killed.

    python -m reliability.grid [--hours 24] [--minute 0.25] [--seed 0] [--jobs 1] [--folder DIR]

Time is scaled: a simulated minute lasts `--minute` seconds, and with it a run's lease (2 minutes), the time between
checkpoints (1), the polling of other workers and the pause before a dead worker is restarted (1). A worker is killed
(SIGKILL) every 2 minutes on average, which is several times during a run; every 20 minutes on average one is stopped
(SIGSTOP) for 3 to 8 minutes, longer than its lease, and then continued (SIGCONT). The workers are real processes that
carry out the same list of tiny runs (both teachers, the student alone and with every method from both, over as
many seeds as the hours need) with `sftn.experiments.queue.work`. Each believes that the other is on another machine,
so the other's lease ends only by time. All kills are hard, and the test continues until all runs are done.

An undisturbed pair of workers carries out the same list in another folder. Every run must be done exactly once: its
result is written once, and weights, result and log are the same. If not, or if the list was too short, the exit code
is 1.

With `--jobs 2`, each of the two carries out two runs at a time in processes of its own, which are started anew and take
seconds to begin, so minutes must be longer (`--hours 3 --minute 4`). Such processes know the package's networks alone
and the clock's own leases, so the list is of another pair and of digits, all four trust each other's process ids, and
results are not counted as they are written.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from reliability import small
from reliability.children import PATIENCE, Child
from sftn.data.dataset import Dataset, Request
from sftn.data.load import load
from sftn.experiments.grid import Conditions, Planned, grid
from sftn.experiments.queue import work
from sftn.experiments.table import METHODS, Pair, Table
from sftn.spec.execution import Execution
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule
from sftn.storage import lease

EPOCHS = 40
DIGITS = 40
"""Training images of the list for several jobs."""
KILL, STOP, RESTART, LEASE = 2.0, 20.0, 1.0, 2.0
"""Simulated minutes between two kills, between two stops, before a restart, and of a lease."""
_SHARE = 0.55
"""Fraction of the hours that the list takes undisturbed; kills slow it down by more than the rest."""


@dataclass
class Day:
    """The events of a disturbed day."""

    seconds: float = 0.0
    kills: int = 0
    stops: int = 0
    starts: int = 0
    overtaken: int = 0
    """How often a worker continued and found that another had taken over its run."""
    faults: list[str] = field(default_factory=list)


def runs(seeds: int, methods: Sequence[str] = METHODS, epochs: int = EPOCHS, jobs: int = 1) -> list[Planned]:
    """Make the list: the networks of a small table, for every seed."""
    data = Data("small", images(1).identity) if jobs == 1 else Data("digits", images(jobs).identity, DIGITS)
    pair = Pair("wide", "narrow") if jobs == 1 else Pair("wrn_10_1", "resnet8")
    one = Run(pair.teacher, data, 0, Schedule(epochs=epochs if jobs == 1 else epochs // 4, batch=16), "float32")
    which = Table("table0", "a small one", (pair,), section="none", methods=tuple(methods))
    return grid(which, Conditions.of(one), seeds)


def images(jobs: int) -> Dataset:
    """The images of the list."""
    return small.images(Request()) if jobs == 1 else load("digits", limit=DIGITS)


def undisturbed(planned: Sequence[Planned], out: Path, minute: float, jobs: int = 1) -> float:
    """Carry out the list with two undisturbed workers; return the seconds."""
    began = time.monotonic()
    workers = [_start(planned, out, number, 0, minute, jobs) for number in (1, 2)]
    for worker in workers:
        while (ended := worker.wait(PATIENCE)) is None:
            continue
        if ended.code != 0:
            raise RuntimeError(f"a worker fails even undisturbed: {ended.end()}")
    return time.monotonic() - began


def disturbed(
    planned: Sequence[Planned], out: Path, minute: float, seed: int, longest: float = 3600.0, jobs: int = 1
) -> Day:
    """Carry out the list with two workers that are killed and stopped until it is done.

    Args:
        planned: the list.
        out: folder of all runs.
        minute: seconds per simulated minute.
        seed: seed of the kills and stops.
        longest: seconds after which it counts as hung.
        jobs: runs at a time in each worker.
    """
    choose, day = random.Random(seed), Day()
    began = time.monotonic()
    alive: dict[int, Child] = {}
    due = dict.fromkeys((1, 2), 0.0)
    """When a worker (re)starts; no entry for those that are working or done."""
    wake: dict[int, float] = {}
    kill, stop = (choose.expovariate(1 / every) for every in (KILL, STOP))
    while alive or due:
        now = (time.monotonic() - began) / minute
        if now * minute > longest:
            day.faults.append(f"not done after {longest:.0f} s")
            break
        for number in [number for number, at in due.items() if at <= now]:
            del due[number]
            day.starts += 1
            alive[number] = _start(planned, out, number, day.starts, minute, jobs)
        for number in [number for number, at in wake.items() if at <= now]:
            del wake[number]
            if number in alive:
                alive[number].signal(signal.SIGCONT)
        for number, worker in list(alive.items()):
            ended = worker.wait(0)
            if ended is None:
                continue
            del alive[number]
            day.overtaken += ended.said.count("was taken over")
            if ended.code == 137:
                day.kills += 1
                due[number] = now + RESTART
            elif ended.code != 0:
                day.faults.append(f"worker {number}: {ended.end()}")
                due[number] = now + RESTART
        if alive and now >= kill:
            alive[choose.choice(list(alive))].signal(signal.SIGKILL)
            kill = now + choose.expovariate(1 / KILL)
        awake = [number for number in alive if number not in wake]
        if awake and now >= stop:
            number = choose.choice(awake)
            alive[number].signal(signal.SIGSTOP)
            day.stops += 1
            wake[number] = now + choose.uniform(3, 8)
            stop = now + choose.expovariate(1 / STOP)
        time.sleep(minute / 100)
    for worker in alive.values():
        worker.signal(signal.SIGKILL)
        worker.wait(PATIENCE)
    day.seconds = time.monotonic() - began
    return day


def judge(planned: Sequence[Planned], whole: Path, out: Path) -> list[str]:
    """List the faults after a disturbed day."""
    faults = []
    ledger = out.parent / "ledger"
    lines = [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
    written = Counter(run for what, run in lines if what == "written")
    faults += [f"{run}: its result was written {count} times" for run, count in written.items() if count > 1]
    faults += [f"{run}: its result was about to be overwritten" for what, run in lines if what == "again"]
    for item in planned:
        name = item.run.folder
        try:
            expected, found = small.left(whole / name), small.left(out / name)
        except (OSError, ValueError) as error:
            faults.append(f"{name} was not done: {error}")
            continue
        faults += [f"{name}: its {part} differ" for part, own in expected.items() if own != found[part]]
    return faults


def _start(planned: Sequence[Planned], out: Path, number: int, life: int, minute: float, jobs: int) -> Child:
    task = partial(_worker if jobs == 1 else _employer, planned, out, number, minute, jobs)
    return Child(task, out.parent / f"notes-{number}-{life}")


def _employer(planned: Sequence[Planned], out: Path, number: int, minute: float, jobs: int) -> None:
    execution = Execution(device="cpu", cohort=1, checkpoint_seconds=minute, jobs=str(jobs), teacher_cache="off")
    work(planned, images(jobs), out, execution, wait=minute / 12)


def _worker(planned: Sequence[Planned], out: Path, number: int, minute: float, jobs: int) -> None:
    lease.SECONDS = LEASE * minute
    lease._place = lambda: f"machine {number}"
    small.register()
    replace = os.replace

    def noted(source: Any, target: Any, **more: Any) -> None:
        """Keep a ledger of results: a line before each write if a result exists already, and a line after it."""
        if os.path.basename(target) != "result.json":
            replace(source, target, **more)
            return
        name = os.path.basename(os.path.dirname(target))
        if os.path.exists(target):
            _append(out.parent / "ledger", f"again {name}\n")
        replace(source, target, **more)
        _append(out.parent / "ledger", f"written {name}\n")

    os.replace = noted  # type: ignore[assignment]
    # One student at a time, because eight together take longer to start than the time between two kills.
    execution = Execution(device="cpu", cohort=1, checkpoint_seconds=minute, teacher_cache="off")
    work(planned, images(jobs), out, execution, wait=minute / 12)


def _append(path: Path, line: str) -> None:
    ledger = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)


def main() -> None:
    """Simulate a day and print its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated ones")
    parser.add_argument("--minute", type=float, default=0.25, help="seconds per simulated minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time in each worker")
    parser.add_argument("--folder", type=Path, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    minute, jobs = options.minute, options.jobs
    with tempfile.TemporaryDirectory(prefix="sftn-grid-", dir=options.folder) as base:
        whole, out = Path(base) / "whole" / "runs", Path(base) / "day" / "runs"
        first = undisturbed(runs(1, jobs=jobs), whole, minute, jobs)
        seeds = max(1, math.ceil(_SHARE * options.hours * 60 * minute / first))
        planned = runs(seeds, jobs=jobs)
        peace = first + undisturbed(planned, whole, minute, jobs)
        took = [small.seconds(whole / item.run.folder) / minute for item in planned]
        day = disturbed(planned, out, minute, options.seed, jobs=jobs)
        faults = day.faults + judge(planned, whole, out)
        hours = day.seconds / minute / 60
        done = [item for item in planned if (out / item.run.folder / "result.json").exists()]
        for fault in faults:
            print(f"FAULT: {fault}")
        rows = [
            ("simulated hours", f"{hours:.1f}"),
            ("simulated hours without kills", f"{peace / minute / 60:.1f}"),
            ("runs", len(planned)),
            ("simulated minutes of training in a run, median", f"{statistics.median(took):.1f}"),
            ("workers killed", day.kills),
            ("kills per run", f"{day.kills / len(planned):.1f}"),
            ("workers stopped for longer than a lease", day.stops),
            ("of these, lost their run and reported it", day.overtaken),
            ("workers started", day.starts),
            ("runs done", len(done)),
            ("runs done twice", sum("written" in fault for fault in faults)),
            ("runs lost", len(planned) - len(done)),
            ("runs with the same weights, result and log", len(planned) - len({f.partition(":")[0] for f in faults})),
        ]
        print(small.table(("", "count"), rows))
        print(f"\na simulated minute lasts {minute:g} s; {day.seconds:.0f} s, seed {options.seed}")
    sys.exit(bool(faults) or hours < options.hours)


if __name__ == "__main__":
    main()
