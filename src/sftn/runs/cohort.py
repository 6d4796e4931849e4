"""Cohorts: students of one teacher, trained in turn one step at a time, sharing the batches and the teacher's outputs.

Each student is a separate run, with its own folder, lease, log, checkpoints, optimiser and random numbers, and computes
what it would compute alone: on a CPU, the same bits. The run that is furthest behind takes the next step, so runs that
are apart, as after a kill or a first stage, come together by themselves, and runs at the same step reuse the batch and
the teacher's outputs. Only speed depends on their being together. A student's activations are freed before the next
one takes its step, so a cohort needs the memory of one student, plus the others' weights, momentum and method state.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sftn.data.dataset import Dataset
from sftn.errors import Diverged, InputError, Stopped
from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.runs.runner import Context, Shared, Steps, carried_out, train
from sftn.runs.teacher_cache import TeacherCache
from sftn.runs.threads import threads_kept
from sftn.runtime.collectives import world
from sftn.runtime.device import join, repeatable
from sftn.runtime.leader import leads
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lost
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)
Outcome = dict[str, Any] | Held | Lost | FloatingPointError
"""How a run ended: the content of its `result.json`, or the reason why it has none."""


def joins(run: Run) -> bool:
    """Whether a run can share its teacher: it needs outputs for the same images as the other runs."""
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return False
    methods = [METHODS[term.method] for term in run.objective.terms]
    return all(method.views is Method.views and method.copies == 1 and method.flip for method in methods)


def alike(one: Run, other: Run) -> bool:
    """Whether two runs can share a teacher's outputs and batches; epochs and learning rates may differ."""
    return one.teachers == other.teachers and _stream(one) == _stream(other)


def company(runs: Sequence[Run], size: int) -> list[Run]:
    """The first run and those that can be trained together with it, at most `size` in all, in their order."""
    first, *others = runs
    found = [run for run in others if joins(run) and alike(first, run)] if joins(first) else []
    return [first, *found[: max(0, size - 1)]]


def size(execution: Execution, runs: Sequence[Run]) -> int:
    """How many runs may be trained at once: `cohort`, or 1 with several processes, which is logged if it matters.

    Raises:
        InputError: the number is below 1.
    """
    cohort, processes = execution.cohort, execution.devices * execution.nodes
    if cohort < 1:
        raise InputError(f"cohort is {cohort}: give at least 1")
    if processes == 1 or cohort == 1:
        return cohort
    if leads() and any(len(company(runs[first:], 2)) > 1 for first in range(len(runs))):
        logger.info("%d processes train one student after the other: a cohort needs a single process", processes)
    return 1


def _stream(run: Run) -> tuple[Any, ...]:
    return run.data, run.seed, run.schedule.batch, run.precision


def carry_out(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    callback: Callback | None = None,
    waiting: int = 0,
) -> list[Outcome]:
    """Carry out one run with `train`, several with `train_together`; an error of one run becomes its outcome."""
    if len(runs) > 1:
        return train_together(runs, dataset, out, execution, callback=callback, waiting=waiting)
    try:
        return [train(runs[0], dataset, out, execution, callback=callback, waiting=waiting)]
    except (Held, Lost, FloatingPointError) as error:
        return [error]


def train_together(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    callback: Callback | None = None,
    waiting: int = 0,
) -> list[Outcome]:
    """Carry out the runs of several students, or what is left of them, each as `sftn.runs.runner.train` would.

    A run that diverges, or that another process holds or takes over, leaves the cohort; the others continue. First
    stages are trained one after the other. A run records the seconds of its own steps; the run that takes a step first
    is charged for teacher and loader, so that the sum over the cohort is the total time.

    Args:
        runs: students of one teacher, with the same data, seed, precision and batch; all of them are trained, whatever
            `execution.cohort` is.
        dataset: the images.
        out: the folder of all runs.
        execution: device, processes, checkpoints and speed.
        callback: called at the steps of all runs.
        waiting: how many other runs will ask the teacher the same later.

    Returns:
        For each run, in order, its result, or the error with which it left the cohort.

    Raises:
        InputError: the runs cannot share, there are several processes, or an input is wrong for all runs.
        Stopped: a signal ended training; all states are saved and the same call resumes from there.
    """
    if world() > 1 or execution.devices * execution.nodes > 1:
        raise InputError("a cohort needs a single process: leave --devices and --nodes out, or give --cohort 1")
    if execution.compile:
        raise InputError("--compile cannot train a cohort: give --cohort 1, or leave --compile out")
    for run in runs[1:]:
        if not alike(runs[0], run):
            raise InputError(f"{run.name} and {runs[0].name} differ in teacher, data, seed, precision or batch")
    _ = execution.thread_count  # a wrong number is an error before anything begins
    join(execution.device, 1, 1)
    shared = Shared(TeacherCache(runs, dataset, execution.cache_gib, waiting=waiting))
    shown = None if callback is None else _Shown(callback)
    members = []
    for run in runs:
        seen = None if shown is None else _Watched(shown)
        members.append(_Member(carried_out(run, dataset, Context(out, execution, seen, shared))))
    with repeatable(execution.deterministic), threads_kept(), ExitStack() as ends:
        for member in members:
            ends.callback(member.steps.close)
        while left := [member for member in members if member.outcome is None]:
            try:
                min(left, key=lambda member: member.at).go()
            except Stopped as stopped:
                shared.stop.number = shared.stop.number or stopped.signal
            if shared.stop.number:  # a run that has begun saves its state at its next step
                members = [member for member in members if member.begun and not member.stopped]
    if shared.stop.number:
        raise Stopped(shared.stop.number)
    return [member.outcome for member in members if member.outcome is not None]


class _Member:
    """A run of a cohort, its random state, and its progress."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.at: tuple[int, ...] = (-1, 0, 0)
        self.begun = self.stopped = False
        self.outcome: Outcome | None = None
        self._random = _random()

    def go(self) -> None:
        """Take a step, and do everything that comes before the next one."""
        _set_random(self._random)
        self.begun = True
        try:
            self.at = next(self.steps)
        except StopIteration as end:
            self.outcome = end.value
        except (Held, Lost, Diverged) as error:
            self.outcome = error
        except BaseException:
            self.stopped = True
            raise
        self._random = _random()


def _random() -> dict[str, Tensor]:
    """The state of torch's generators, read without waiting for a device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])


class _Shown:
    """The progress shown for a cohort: phase and step of the run that is active."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.phase: tuple[str, int, int] | None = None

    def turn(self, phase: tuple[str, int, int], done: int) -> Callback:
        """The callback, after announcing the phase if it changed."""
        if self.phase != phase:
            self.phase = phase
            self.callback.start(*phase, done)
        return self.callback


class _Watched:
    """The callback of one run of a cohort."""

    def __init__(self, shown: _Shown) -> None:
        self.shown = shown

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Note that a phase begins; it is shown with its first step."""
        self._phase, self._done = (phase, epochs, steps), done

    def step(self, step: int) -> None:
        """Pass on that `step` steps of the epoch are done."""
        self.shown.turn(self._phase, self._done).step(step)

    def epoch(self, row: Any) -> None:
        """Pass on that an epoch is over."""
        self.shown.turn(self._phase, self._done).epoch(row)
        self._done = row["epoch"]
