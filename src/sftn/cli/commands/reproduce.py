"""What the command reproduce does: a name becomes a table's runs, which are carried out and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as Shown

from sftn.cli import resolve
from sftn.cli.console import console, say, watch
from sftn.cli.options import DataOptions, TrainOptions
from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments import measure, ray_queue, studies
from sftn.experiments.deviations import remarks
from sftn.experiments.grid import Conditions, Planned, grid, part, smoke
from sftn.experiments.metrics import Measured
from sftn.experiments.queue import Survey, sigterm, work
from sftn.experiments.table import Table
from sftn.profiling.estimate import estimate
from sftn.runs.build import check
from sftn.runs.folder import DONE
from sftn.runtime.collectives import world
from sftn.runtime.device import join
from sftn.runtime.processes import led, part_alone
from sftn.spec.run import Run

SMOKE_IMAGES, SMOKE_SEEDS, SMOKE_SIZE = 40, 2, 32
OWN = "paper"
"""What stands for the images and the recipe that a table or study has of its own."""


def reproduce(
    name: str,
    pairs: Sequence[str],
    methods: Sequence[str],
    teachers: Sequence[str],
    seeds: int | None,
    tiny: bool,
    plan_only: bool,
    executor: str,
    gpus_per_run: float,
    timing_seconds: float,
    data: DataOptions,
    options: TrainOptions,
    to: Sequence[str] = (),
    images: int | None = None,
) -> None:
    """Show the plan of a table or study, work it off and measure what it says; what is done is not done again."""
    table, measures = studies.parts(name)
    if executor == "ray":
        ray_queue.check()
        if options.devices * options.nodes > 1:
            raise InputError("--executor ray gives each run one process: leave --devices and --nodes out")
    if options.lr is not None:
        raise InputError(f"{name} has learning rates of its own, by network: leave --lr out")
    if tiny:
        table, data, options = _tiny(table, pairs, data, options)
        seeds, pairs = SMOKE_SEEDS if seeds is None else seeds, ()
    seeds = table.seeds if seeds is None else seeds
    if seeds < 1:
        raise InputError(f"seeds is {seeds}: give at least 1")
    data, options = _own(table, data, options)
    table, ways = part(table, pairs, methods, teachers)
    conditions, dataset = _conditions(table, data, options)
    planned = grid(table, conditions, seeds, ways)
    if not plan_only:
        join(options.device, options.devices, options.nodes)
    survey = led(lambda: Survey.of(planned, options.out))
    survey.check()
    if not measures and (to or images is not None):
        raise InputError(f"{name} measures nothing on top of its runs: leave --to and --images out")
    how: dict[str, Any] = {"data_dir": data.data_dir, "to": to, "images": images, "smoke": tiny, "say": say}
    tools = [(which, measure.instruments(which, dataset, options.out, **how)) for which in measures]
    _show_plan(table, conditions, survey, seeds, options.out)
    for which, own in tools:
        _show_measurements(which, planned, own, options.out)
    left = survey.runs(None)
    if left:
        for run in [run for run in left if run.seed == left[0].seed and table.pairs[0].student in _names(run)]:
            check(run, dataset)
        done = survey.runs(DONE)
        budget = timing_seconds if world() == 1 else 0.0
        found = estimate(left, dataset, options.out, done=done, device=options.device, budget=budget)
        if found is not None:
            say(f"Estimated: {_hours(found.hours)}, one run after the other ({found.how})")
    if plan_only:
        return
    if executor == "ray":
        ray_queue.work(planned, dataset, options.out, options.conduct, gpus_per_run=gpus_per_run, say=say)
    else:
        work(planned, dataset, options.out, options.conduct, watch=watch, say=say)
    if not part_alone():
        return
    with sigterm():
        for which, own in tools:
            measure.work(planned, which, own, dataset, options.out, device=options.device, say=say)
    measured = " and measured" * any(own for _, own in tools)
    say(f"All runs of {name} are done{measured}. The table: sftn report {name} --out {options.out}")


def _own(table: Table, data: DataOptions, options: TrainOptions) -> tuple[DataOptions, TrainOptions]:
    """The options with what the table has of its own where nothing was asked for.

    Its number of images belongs to its images, and its epochs to its recipe: other ones bring none of them.
    """
    if data.data == OWN:
        limit = table.limit if data.limit is None else data.limit
        classes = table.classes if data.classes is None else data.classes
        data = replace(data, data=table.data, limit=limit, classes=classes)
    if options.recipe == OWN:
        epochs = table.epochs if options.epochs is None else options.epochs
        batch = table.batch if options.batch is None else options.batch
        options = replace(options, recipe=table.recipe, epochs=epochs, batch=batch)
    return data, options


def _tiny(
    table: Table, pairs: Sequence[str], data: DataOptions, options: TrainOptions
) -> tuple[Table, DataOptions, TrainOptions]:
    """The smoke test: one tiny pair, a few digits, an epoch; a folder in ImageNet's layout for a table of ImageNet."""
    folder = table.data == "imagenet" and data.data_dir is not None
    if pairs or (data.data_dir is not None and not folder) or options.recipe not in (OWN, "smoke"):
        raise InputError(
            "--smoke has its own pair, images (digits) and recipe: leave --pairs, --data-dir, --recipe out"
        )
    options = replace(options, recipe="smoke", batch=options.batch or 20)
    if folder:
        return smoke(table), replace(data, data=table.data, size=data.size or SMOKE_SIZE), options
    return smoke(table), DataOptions("digits", limit=data.limit or SMOKE_IMAGES), options


def _conditions(table: Table, data: DataOptions, options: TrainOptions) -> tuple[Conditions, Dataset]:
    dataset = resolve.images(data)
    return Conditions.of(resolve.plain_run("", dataset, data, options, seed=0)), dataset


def _names(run: Run) -> tuple[str, ...]:
    return (run.network, "" if run.friendly is None else run.friendly.student)


def _show_plan(table: Table, conditions: Conditions, survey: Survey, seeds: int, out: Path) -> None:
    header, *rows = survey.rows()
    say(f"{table.name}: {table.title}")
    shown = Shown(box=SIMPLE_HEAD, pad_edge=False)
    for column in header:
        shown.add_column(column, justify="right" if column else "left")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    say(f"Pairs: {' '.join(map(str, table.pairs))}. Methods: {' '.join(table.methods)}. Seeds: {seeds}. Runs in {out}")
    say(f"Conditions: {conditions}")
    deviations = conditions.deviations(table)
    if deviations:
        say(f"NOT the {table.source}'s conditions: {'; '.join(deviations)}. The report says so too.")
    for note in table.notes:
        say(f"Note: {note}")


def _show_measurements(
    which: Measured, planned: Sequence[Planned], tools: Sequence[measure.Instrument], out: Path
) -> None:
    """What is measured on top, how, and how much of it is there."""
    asked = measure.subjects(planned, which)
    done = sum((out / item.run.folder / "result.json").exists() for item in asked)
    left = list(measure.missing(planned, which, tools, out))
    for tool in tools:
        there = done - sum(own is tool for _, own, _ in left)
        say(f"Measured on top: {tool.name} of {len(asked)} networks, {there} there")
        differs = remarks(tool.settings, which.targets)
        if differs:
            say(f"NOT as the paper measures: {'; '.join(differs)}. The report says so too.")


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return "less than a minute"
    if hours < 1.5:
        minutes = round(hours * 60)
        return f"about {minutes} minute{'s' * (minutes != 1)}"
    return f"about {hours:,.0f} hours" if hours < 72 else f"about {hours:,.0f} hours, {hours / 24:,.0f} days"
