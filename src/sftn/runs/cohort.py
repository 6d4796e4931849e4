"""A cohort: students of one teacher, trained in turn a step at a time, who share its answers and the batches.

Each is a run of its own, with its own folder, lease, log, checkpoints, optimiser and random numbers, and computes what
it would compute alone: on a CPU the same bits. Whoever is furthest behind makes the next step, so runs that stand at
different places, as after a kill or a first stage, come together by themselves, and those at the same step find the
batch and the teacher's answer there. Nothing depends on their being together but speed. Activations of a student are
freed before the next one makes its step, so a cohort needs the memory of one student, and the others' weights,
momentum and what their methods keep.
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
from sftn.runtime.collectives import world
from sftn.runtime.device import join, repeatable
from sftn.runtime.processes import leads
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lost
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)
Outcome = dict[str, Any] | Held | Lost | FloatingPointError
"""What became of a run: the content of its `result.json`, or why it has none."""


def joins(run: Run) -> bool:
    """Whether a run has something to share: a teacher that is asked about the very images that others see."""
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return False
    methods = [METHODS[term.method] for term in run.objective.terms]
    return all(method.views is Method.views and method.copies == 1 and method.flip for method in methods)


def alike(one: Run, other: Run) -> bool:
    """Whether two runs can share a teacher's answers and batches; epochs and learning rates are free."""
    return one.teacher == other.teacher and _stream(one) == _stream(other)


def company(runs: Sequence[Run], size: int) -> list[Run]:
    """The first of some runs and those that can be trained together with it, at most `size` in all, in their order."""
    first, *others = runs
    found = [run for run in others if joins(run) and alike(first, run)] if joins(first) else []
    return [first, *found[: max(0, size - 1)]]


def size(execution: Execution, runs: Sequence[Run]) -> int:
    """How many may be trained at once: `cohort`, or 1 by several processes, which is logged if it makes a difference.

    Raises:
        InputError: the number is below 1.
    """
    cohort, processes = execution.cohort, execution.devices * execution.nodes
    if cohort < 1:
        raise InputError(f"cohort is {cohort}: give at least 1")
    if processes == 1 or cohort == 1:
        return cohort
    if leads() and any(len(company(runs[first:], 2)) > 1 for first in range(len(runs))):
        logger.info("%d processes train one student after the other: cohorts are for one process", processes)
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
) -> list[Outcome]:
    """A run by `sftn.runs.runner.train`, several by `train_together`; a run's own error is its outcome either way."""
    if len(runs) > 1:
        return train_together(runs, dataset, out, execution, callback=callback)
    try:
        return [train(runs[0], dataset, out, execution, callback=callback)]
    except (Held, Lost, FloatingPointError) as error:
        return [error]


def train_together(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    callback: Callback | None = None,
) -> list[Outcome]:
    """Carry out several students' runs, or what is left of them, as `sftn.runs.runner.train` does each.

    One that diverges, or that another process has or takes, leaves the cohort, and the others go on. First stages are
    trained one after the other. The seconds that a run records are those of its own steps; whoever makes a step first
    has the teacher's and the loader's among them, so that the sum over the cohort is what it took.

    Args:
        runs: students of one teacher, with the same data, seed, precision and batch; all of them, whatever
            `execution.cohort` is.
        dataset: the images.
        out: the folder of all runs.
        execution: how.
        callback: is called at the steps of all.

    Returns:
        For each run, in order, its result, or the error by which it left.

    Raises:
        InputError: runs that cannot share, several processes, or something given from outside is wrong for all.
        Stopped: a signal asked for the end; all states are saved and the same call goes on from there.
    """
    if world() > 1 or execution.devices * execution.nodes > 1:
        raise InputError("a cohort is trained by one process: leave --devices and --nodes out, or give --cohort 1")
    if execution.compile:
        raise InputError("--compile is for runs one by one: give --cohort 1, or leave it out")
    for run in runs[1:]:
        if not alike(runs[0], run):
            raise InputError(f"{run.name} and {runs[0].name} differ in teacher, data, seed, precision or batch")
    join(execution.device, 1, 1)
    shared = Shared(TeacherCache(runs, dataset, execution.teacher_cache))
    shown = None if callback is None else _Shown(callback)
    members = []
    for run in runs:
        seen = None if shown is None else _Watched(shown)
        members.append(_Member(carried_out(run, dataset, Context(out, execution, seen, shared))))
    with repeatable(execution.deterministic), ExitStack() as ends:
        for member in members:
            ends.callback(member.steps.close)
        while left := [member for member in members if member.outcome is None]:
            try:
                min(left, key=lambda member: member.at).go()
            except Stopped as stopped:
                shared.stop.number = shared.stop.number or stopped.signal
            if shared.stop.number:  # whoever has begun saves its state at its next step
                members = [member for member in members if member.begun and not member.stopped]
    if shared.stop.number:
        raise Stopped(shared.stop.number)
    return [member.outcome for member in members if member.outcome is not None]


class _Member:
    """A run of a cohort, its random numbers, and how far it has come."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.at: tuple[int, ...] = (-1, 0, 0)
        self.begun = self.stopped = False
        self.outcome: Outcome | None = None
        self._random = _random()

    def go(self) -> None:
        """Make a step, and all that comes before the next one."""
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
    """The state of torch's generators; no device is waited for."""
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
    """What a person sees of a cohort: the phase and step of whoever is at work."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.phase: tuple[str, int, int] | None = None

    def turn(self, phase: tuple[str, int, int], done: int) -> Callback:
        """The callback, told of the phase unless it knows it."""
        if self.phase != phase:
            self.phase = phase
            self.callback.start(*phase, done)
        return self.callback


class _Watched:
    """The callback of one run of a cohort."""

    def __init__(self, shown: _Shown) -> None:
        self.shown = shown

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins; it is shown with its first step."""
        self._phase, self._done = (phase, epochs, steps), done

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        self.shown.turn(self._phase, self._done).step(step)

    def epoch(self, row: Any) -> None:
        """An epoch is over."""
        self.shown.turn(self._phase, self._done).epoch(row)
        self._done = row["epoch"]
