"""What a list of runs amounts to before it begins: how many are to be trained, and for how long on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sftn.data.dataset import Dataset
from sftn.experiments.grid import Planned
from sftn.experiments.survey import Survey
from sftn.experiments.workers import settle_jobs
from sftn.profiling.estimate import duration, estimate
from sftn.runs.folder import DONE
from sftn.runtime.collectives import world
from sftn.runtime.cores import usable_cores
from sftn.runtime.device import accelerator
from sftn.spec.execution import Execution

BUDGET = 8.0
"""Seconds for timing a few steps of each kind of run."""


@dataclass(frozen=True)
class Forecast:
    """What is left of a list of runs."""

    line: str
    """In words: how many runs, and the time that they take here."""
    seconds: Mapping[str, float]
    """Of each run that is left, by its id; empty if nothing was timed."""


def forecast(
    planned: Sequence[Planned], dataset: Dataset, out: Path, execution: Execution, *, budget: float = BUDGET
) -> Forecast:
    """See what is left of a list of runs, and time a few steps of each kind; nothing is written.

    Args:
        planned: all runs.
        dataset: the images.
        out: the folder of all runs.
        execution: device and number of jobs.
        budget: seconds for timing; none are timed if several processes train together.

    Raises:
        InputError: a run's folder is damaged or holds something else.
    """
    survey = Survey.of(planned, out)
    survey.check()
    left, done = survey.runs(None), survey.runs(DONE)
    if not left:
        return Forecast(f"all {_runs(len(planned))} are done", {})
    teachers = len(survey.runs(None, "teacher"))
    parts = [_count(teachers, "teacher"), _count(len(left) - teachers, "student")]
    line = f"to train: {' and '.join(filter(None, parts))}" + (f"; {_runs(len(done))} done" if done else "")
    if world() > 1:
        return Forecast(line, {})
    jobs = settle_jobs(execution, left, accelerator(execution.device))
    threads = torch.get_num_threads()
    try:
        if jobs > 1:
            torch.set_num_threads(max(1, usable_cores() // jobs))
        found = estimate(left, dataset, out, done=done, device=execution.device, budget=budget)
    finally:
        torch.set_num_threads(threads)
    if found is None:
        return Forecast(line, {})
    at_once = f", {jobs} runs at a time" if jobs > 1 else ""
    return Forecast(f"{line}; {duration(found.hours / jobs)} on this machine{at_once}", found.seconds)


def _runs(count: int) -> str:
    return _count(count, "run")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}" if count else ""
