"""`sftn reproduce`: plan, train and measure the runs of a table or study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as Shown

from sftn.cli import options
from sftn.cli.console import display, say, show_table
from sftn.errors import InputError
from sftn.experiments import measure, ray_queue, studies
from sftn.experiments.deviations import remarks
from sftn.experiments.grid import Conditions, Planned, grid, part, seed_values, smoke
from sftn.experiments.metrics import Measured
from sftn.experiments.queue import work
from sftn.experiments.survey import Survey
from sftn.experiments.table import Table
from sftn.profiling.estimate import duration, estimate
from sftn.runs import requests
from sftn.runs.build import check
from sftn.runs.folder import DONE, RunFolder
from sftn.runtime.collectives import world
from sftn.runtime.device import join
from sftn.runtime.processes import led, part_alone
from sftn.runtime.signals import sigterm
from sftn.spec.images import Images
from sftn.spec.run import Run
from sftn.spec.training import Training

SMOKE_IMAGES, SMOKE_SEEDS, SMOKE_SIZE = 40, 2, 32
OWN = "paper"
"""The option value that selects a table's or study's own images or recipe."""


def reproduce(asked: options.Reproduce) -> None:
    """Show the plan of a table or study, train its runs and measure them; finished work is not repeated."""
    name, pairs, seeds, out, execution = asked.table, asked.pairs, asked.seeds, asked.out, asked.execution
    images, training = asked.images, asked.training
    table, measures = studies.parts(name)
    if asked.executor == "ray":
        ray_queue.check()
        if execution.devices * execution.nodes > 1:
            raise InputError("--executor ray gives each run one process: leave --devices and --nodes out")
    if training.lr is not None:
        raise InputError(f"{name} sets the learning rate of each network itself: leave --lr out")
    if asked.smoke:
        table, images, training = _tiny(table, pairs, images, training)
        seeds, pairs = (SMOKE_SEEDS,) if seeds is None else seeds, ()
    chosen = seed_values((table.seeds,) if seeds is None else seeds)
    images, training = _with_defaults(table, images, training)
    table, ways = part(table, pairs, asked.methods, asked.teachers)
    dataset = requests.load_images(images)
    conditions = Conditions.of(requests.plain_run("", dataset, images, training, execution))
    planned = grid(table, conditions, chosen, ways)
    if not asked.dry_run:
        join(execution.device, execution.devices, execution.nodes)
    survey = led(lambda: Survey.of(planned, out))
    survey.check()
    if not measures and (asked.to or asked.test_images is not None):
        raise InputError(f"{name} consists of runs only and measures nothing else: leave --to and --test-images out")
    how: dict[str, Any] = {"data_dir": images.data_dir, "to": asked.to, "images": asked.test_images}
    how |= {"smoke": asked.smoke}
    tools = [(which, measure.instruments(which, dataset, out, **how)) for which in measures]
    _show_plan(table, conditions, survey, chosen, out)
    for which, own in tools:
        _show_measurements(which, planned, own, out)
    left = survey.runs(None)
    seconds: Mapping[str, float] = {}
    if left:
        for run in [run for run in left if run.seed == left[0].seed and table.pairs[0].student in _names(run)]:
            check(run, dataset)
        done = survey.runs(DONE)
        budget = asked.timing_seconds if world() == 1 else 0.0
        found = estimate(left, dataset, out, done=done, device=execution.device, budget=budget)
        if found is not None:
            seconds = found.seconds
            say(f"Estimated: {duration(found.hours)}, one run at a time ({found.how})")
    if asked.dry_run:
        return
    if asked.executor == "ray":
        ray_queue.work(planned, dataset, out, execution, gpus_per_run=asked.gpus_per_run)
    else:
        watching: dict[str, Any] = {"watch": display.watch, "overall": display.overall, "seconds": seconds}
        work(planned, dataset, out, execution, **watching)
    if not part_alone():
        return
    with sigterm():
        for which, own in tools:
            measure.work(planned, which, own, dataset, out, device=execution.device)
    measured = " and measured" * any(own for _, own in tools)
    say(f"All runs of {name} are done{measured}. To see the table: sftn report {name} --out {out}")


def _with_defaults(table: Table, images: Images, training: Training) -> tuple[Images, Training]:
    """Images and training with the table's own values for options that were not given.

    The table's number of images applies only to its own images, and its epochs and batch only to its own recipe.
    """
    if images.data == OWN:
        limit = table.limit if images.limit is None else images.limit
        classes = table.classes if images.classes is None else images.classes
        images = replace(images, data=table.data, limit=limit, classes=classes)
    if training.recipe == OWN:
        epochs = table.epochs if training.epochs is None else training.epochs
        batch = table.batch if training.batch is None else training.batch
        training = replace(training, recipe=table.recipe, epochs=epochs, batch=batch)
    return images, training


def _tiny(table: Table, pairs: Sequence[str], images: Images, training: Training) -> tuple[Table, Images, Training]:
    """The smoke test: one tiny pair, a few digits, one epoch; for ImageNet, images from a folder in its layout."""
    folder = table.data == "imagenet" and images.data_dir is not None
    if pairs or (images.data_dir is not None and not folder) or training.recipe not in (OWN, "smoke"):
        raise InputError(
            "--smoke has its own pair, images (digits) and recipe: leave --pairs, --data-dir, --recipe out"
        )
    training = replace(training, recipe="smoke", batch=training.batch or 20)
    if folder:
        return smoke(table), replace(images, data=table.data, size=images.size or SMOKE_SIZE), training
    return smoke(table), Images("digits", limit=images.limit or SMOKE_IMAGES), training


def _names(run: Run) -> tuple[str, ...]:
    return (run.network, "" if run.friendly is None else run.friendly.student)


def _show_plan(table: Table, conditions: Conditions, survey: Survey, seeds: Sequence[int], out: Path) -> None:
    header, *rows = survey.rows()
    say(f"{table.name}: {table.title}")
    shown = Shown(box=SIMPLE_HEAD, pad_edge=False)
    for column in header:
        shown.add_column(column, justify="right" if column else "left")
    for row in rows:
        shown.add_row(*row)
    show_table(shown)
    pairs, numbers = " ".join(map(str, table.pairs)), " ".join(map(str, seeds))
    say(f"Pairs: {pairs}. Methods: {' '.join(table.methods)}. Seeds: {numbers}. Runs in {out}")
    say(f"Conditions: {conditions}")
    deviations = conditions.deviations(table)
    if deviations:
        say(f"NOT the {table.source}'s conditions: {'; '.join(deviations)}. The report repeats this.")
    for note in table.notes:
        say(f"Note: {note}")


def _show_measurements(
    which: Measured, planned: Sequence[Planned], tools: Sequence[measure.Instrument], out: Path
) -> None:
    """Show what is measured on the trained networks, how, and how much of it is done."""
    asked = measure.subjects(planned, which)
    done = sum(RunFolder(out / item.run.folder).result_json.exists() for item in asked)
    left = list(measure.missing(planned, which, tools, out))
    for tool in tools:
        there = done - sum(own is tool for _, own, _ in left)
        say(f"Also measured: {tool.name} of {len(asked)} networks, {there} done")
        differs = remarks(tool.settings, which.targets)
        if differs:
            say(f"NOT measured as in the paper: {'; '.join(differs)}. The report repeats this.")
