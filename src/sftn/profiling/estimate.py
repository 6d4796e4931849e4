"""Estimates how long runs will take, from timing a few steps of each kind and from similar finished runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sftn.data.dataset import Dataset
from sftn.data.loader import training_batches
from sftn.runs.build import evaluation_interval, new_network, plan, teacher_of
from sftn.runs.folder import RunFolder
from sftn.runtime.device import make_fabric
from sftn.runtime.environment import environment
from sftn.spec.run import Run
from sftn.training.loop import first_steps

BUDGET = 60.0
"""Seconds that timing may take."""
_STEPS = 3
"""Number of timed steps, after one that is not timed."""


class Kind(NamedTuple):
    """The properties of a run on which the time of an epoch depends."""

    network: str
    teacher: str | None
    method: str | None
    branches: str
    batch: int
    precision: str

    @staticmethod
    def of(run: Run) -> Kind:
        """The kind of a run; which students its teacher was trained for makes no difference."""
        friendly = "" if run.friendly is None else f"{run.friendly.student} {run.friendly.branches}"
        teacher = "+".join(one.network for one in run.teachers) or None
        method = None if run.objective is None else run.objective.name
        return Kind(run.network, teacher, method, friendly, run.schedule.batch, run.precision)


@dataclass(frozen=True)
class Estimate:
    """Estimated hours on this machine, and how they were determined."""

    hours: float
    how: str
    seconds: Mapping[str, float]
    """Of each run, by its id."""


def duration(hours: float) -> str:
    """An estimate in words, such as "about 3 hours"."""
    if hours < 1 / 60:
        return "less than a minute"
    if hours < 1.5:
        minutes = round(hours * 60)
        return f"about {minutes} minute{'s' * (minutes != 1)}"
    return f"about {hours:,.0f} hours" if hours < 72 else f"about {hours:,.0f} hours, {hours / 24:,.0f} days"


def estimate(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    *,
    done: Iterable[Run] = (),
    device: str = "auto",
    budget: float = BUDGET,
    time_steps: Callable[[Run, Dataset, str], float] | None = None,
) -> Estimate | None:
    """Estimate the time of the remaining runs; None if the budget allowed no timing and no similar run is finished.

    Args:
        runs: the remaining runs.
        dataset: the images.
        out: the folder of all runs.
        done: finished runs; their times on this machine are preferred to a short timing.
        device: auto, cpu, cuda or mps.
        budget: seconds for timing; kinds of runs beyond it are assumed to take as long as similar ones.
        time_steps: returns the seconds of an epoch of a run; by default a few steps are timed.
    """
    per_epoch: dict[Kind, float] = {}
    here = environment(str(make_fabric(device, "float32").device))["device"]
    seen = _seen(done, out, here)
    examples = {Kind.of(run): run for run in runs}
    began, timed = time.perf_counter(), 0
    for kind in sorted(examples, key=lambda kind: (kind.method is not None, kind.method != "kd", str(kind.method))):
        if kind in seen:
            per_epoch[kind] = statistics.fmean(seen[kind])
        elif time.perf_counter() - began < budget:
            per_epoch[kind] = (time_steps or _epoch)(examples[kind], dataset, device)
            timed += 1
    if not per_epoch:
        return None
    evaluation = len(dataset.test) / len(dataset.train) / 3 / evaluation_interval(dataset)
    seconds = {run.id: _like(Kind.of(run), per_epoch) * run.schedule.epochs * (1 + evaluation) for run in runs}
    parts = [f"{timed} of {len(examples)} kinds of run timed for {_STEPS} steps"] if timed else []
    measured = sum(kind in seen for kind in examples)
    parts += [f"{measured} of {len(examples)} known from finished runs"] if measured else []
    guessed = len(examples) - timed - measured
    parts += [f"{guessed} assumed to be like similar ones"] if guessed else []
    return Estimate(sum(seconds.values()) / 3600, "; ".join(parts) + f"; on {here}", seconds)


def _seen(done: Iterable[Run], out: Path, here: str) -> dict[Kind, list[float]]:
    """Seconds per epoch of runs that were finished on this kind of device, by kind of run."""
    seen: dict[Kind, list[float]] = {}
    for run in done:
        record = RunFolder(out / run.folder).result(run) or {}
        if record.get("environment", {}).get("device") == here:
            seen.setdefault(Kind.of(run), []).append(float(record["seconds"]) / run.schedule.epochs)
    return seen


def _like(kind: Kind, known: dict[Kind, float]) -> float:
    """Seconds per epoch of a kind of run, or of the most similar known kinds."""
    if kind in known:
        return known[kind]
    for same in (2, 1, 0):  # same student and teacher, then the same network, then any
        values = [value for other, value in known.items() if other[:same] == kind[:same]]
        if values:
            return statistics.fmean(values)
    return 0.0


def _epoch(run: Run, dataset: Dataset, device: str) -> float:
    """Seconds per epoch of a run, including its share of first stages, from timing a few steps."""
    fabric = make_fabric(device, run.precision)
    network = new_network(run.network, dataset)
    teacher = teacher_of(run, lambda source: new_network(source.network, dataset))
    planned = plan(run, network, dataset, teacher)
    batch, copies, flip = run.schedule.batch, planned.copies, planned.flip
    loader = training_batches(dataset, batch=batch, flip=flip, copies=copies, device=fabric.device)
    timed = [first_steps(phase, loader, fabric, _STEPS + 1) for phase in planned.phases]
    steps = [statistics.median(seconds[1:] or seconds) for seconds in timed]
    per_step = sum(step * phase.schedule.epochs for step, phase in zip(steps, planned.phases)) / run.schedule.epochs
    return per_step * len(loader)
