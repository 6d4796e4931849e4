"""Comparisons over seeds: a student alone, with a standard teacher and with a student-friendly one.

A comparison is a table made from options: `plan` creates it, `sftn.experiments.queue` trains its runs, and `collected`
puts the results together.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.comparison import Comparison
from sftn.experiments.forecast import forecast
from sftn.experiments.given_teacher import given_result, knows, result_of
from sftn.experiments.grid import Conditions, Planned, epochs, grid, seed_values
from sftn.experiments.queue import work
from sftn.experiments.table import BOTH, STANDARD, TEACHERS, Cell, Pair, Setting, Table
from sftn.networks import check_name
from sftn.runs import requests
from sftn.runs.build import check
from sftn.runtime.device import join
from sftn.runtime.leader import leads
from sftn.spec.jobs import ELSEWHERE, BranchValues, Compare
from sftn.spec.run import Branches, FineTune
from sftn.storage.atomic import make_folder, write_atomically
from sftn.storage.json_files import write_json
from sftn.tasks import recipes
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)


def settings(branches: BranchValues) -> tuple[Setting, ...]:
    """The settings of the student-friendly teacher; several are named by what differs among them."""
    each = [{f.name: getattr(one, f.name) for f in fields(Branches)} for one in branches.each()]
    varied = [name for name in each[0] if any(one[name] != each[0][name] for one in each)]
    labels = [", ".join(f"{ELSEWHERE.get(name, name)} {one[name]:g}" for name in varied) for one in each]
    return tuple(Setting(label, label, one) for label, one in zip(labels, each))


@dataclass(frozen=True)
class Plan:
    """A planned comparison: its table, conditions, seeds and title."""

    table: Table
    conditions: Conditions
    seeds: tuple[int, ...]
    title: str
    within: float | None = None
    """Points below the best teacher that a student may be."""
    given: dict[str, Any] | None = None
    """Result on the test images of a teacher that is given and not trained."""

    @property
    def planned(self) -> list[Planned]:
        """All runs, each once: all of one seed before the next, teachers before their students."""
        return grid(self.table, self.conditions, self.seeds, self.table.teachers)


def plan(asked: Compare, dataset: Dataset) -> Plan:
    """Plan the runs of a comparison.

    Raises:
        InputError: a network or method is unknown, or an option is out of range.
    """
    seeds = seed_values(asked.seeds)
    if not asked.methods:
        raise InputError("no method given: choose from " + ", ".join(recipes.OBJECTIVES))
    for method in asked.methods:
        recipes.objective(method, alone=asked.alone, temperature=asked.temperature)
    if asked.within is not None and not asked.within >= 0:
        raise InputError(f"within is {asked.within}: give points, 0 or more")
    if asked.both_teachers and not asked.friendly:
        raise InputError("--both-teachers needs the student-friendly teacher: leave out --no-friendly")
    if asked.ensemble != "mean" and not asked.both_teachers:
        raise InputError(f"--ensemble {asked.ensemble} weighs teachers that teach together: add --both-teachers")
    if not asked.student:
        raise InputError("no student given: name at least one network")
    students = tuple(dict.fromkeys((*asked.student, *asked.unknown)))
    start = requests.start(asked.teacher, asked.teacher_file)
    teacher = asked.teacher if start is None else start.network
    for name in (teacher, *students):
        check_name(name)
    made_for = "+".join(asked.student)
    table = Table(
        name="compare",
        title="",
        pairs=tuple(Pair(teacher, student, made_for) for student in students),
        methods=tuple(dict.fromkeys(asked.methods)),
        settings=settings(asked.branches),
        teachers=(*TEACHERS, BOTH) if asked.both_teachers else TEACHERS if asked.friendly else (STANDARD,),
        ensemble=asked.ensemble,
        seeds=len(seeds),
        temperature=asked.temperature,
        beside_kd=not asked.alone,
        alignment=requests.alignment(asked.align, students),
        fine_tune=None if asked.fine_tune == FineTune() else asked.fine_tune,
        one_rate=asked.training.lr is not None,
        start=start,
        as_is=start is not None and knows(start, dataset),
    )
    conditions = Conditions.of(requests.plain_run("", dataset, asked.images, asked.training, asked.execution))
    strangers = f" (and {' + '.join(asked.unknown)}, unknown to the teacher)" if asked.unknown else ""
    title = (
        f"{teacher if start is None else start.name} → {' + '.join(asked.student)}{strangers}, {dataset.name}, "
        f"{len(dataset.train):,} training images, {epochs(conditions.schedule.epochs)}"
    )
    return Plan(table, conditions, seeds, title, asked.within)


def compare(
    asked: Compare,
    dataset: Dataset | None = None,
    *,
    watch: Callable[[str], AbstractContextManager[Callback]] | None = None,
    overall: Callable[[str], None] | None = None,
) -> Comparison:
    """Run a comparison and write comparison.md and comparison.json; finished runs are not trained again.

    Args:
        asked: what to compare, on which images, and how.
        dataset: the images, if they are loaded already.
        watch: makes a context manager from a run's title that yields the run's callback.
        overall: is told, as text, how far all runs are.

    Raises:
        InputError: the input is wrong.
        FloatingPointError: a run diverged; all others are done.
    """
    dataset = requests.load_images(asked.images) if dataset is None else dataset
    chosen = checked(asked, dataset)
    join(asked.execution.device, asked.execution.devices, asked.execution.nodes)
    if chosen.table.start is not None:
        precision = chosen.conditions.precision
        chosen = replace(chosen, given=given_result(chosen.table, dataset, asked.execution.device, precision))
    seconds = announce(chosen, dataset, asked)
    work(chosen.planned, dataset, asked.out, asked.execution, watch=watch, seconds=seconds, overall=overall)
    found = collected(chosen, asked.out)
    if leads() and found.folder is not None:
        write(found, found.folder)
    return found


def checked(asked: Compare, dataset: Dataset) -> Plan:
    """Plan a comparison and check that its runs can be trained; nothing is written.

    Raises:
        InputError: the input is wrong.
    """
    chosen = plan(asked, dataset)
    for item in chosen.planned:
        if item.run.seed == chosen.seeds[0]:
            check(item.run, dataset)
    return chosen


def announce(chosen: Plan, dataset: Dataset, asked: Compare) -> Mapping[str, float]:
    """Log what is compared, what is left to train, and how long that takes here; returns the seconds of each run."""
    logger.info("%s, %s, runs in %s", chosen.title, chosen.conditions.precision, asked.out)
    found = forecast(chosen.planned, dataset, asked.out, asked.execution)
    logger.info(found.line)
    return found.seconds


def collected(chosen: Plan, out: Path) -> Comparison:
    """Collect the results of a comparison from its finished runs.

    Raises:
        InputError: a run is not finished, or its result is damaged.
    """
    accuracies: dict[Cell, list[float]] = {}
    best: dict[Cell, list[float]] = {}
    results: dict[Cell, dict[int, dict[str, Any]]] = {}
    ids = ""
    for seed in chosen.seeds:
        for pair in chosen.table.pairs:
            for cell in chosen.table.cells(pair):
                record, identity = result_of(chosen.table, cell, chosen.conditions, seed, out, chosen.given)
                accuracies.setdefault(cell, []).append(record["accuracy"])
                results.setdefault(cell, {})[seed] = record
                best.setdefault(cell, []).append(record["best_accuracy"])
                ids += identity
    pair = chosen.table.pairs[0]
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"compare-{pair.teacher}-{pair.made_for}")
    folder = out / f"{name}-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    return Comparison(chosen.title, chosen.table, accuracies, best, chosen.seeds, folder, results, chosen.within)


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json and comparison.md to a folder, which is created if necessary."""
    make_folder(folder)
    write_json(folder / "comparison.json", comparison.record())
    write_atomically(folder / "comparison.md", comparison.markdown().encode())
