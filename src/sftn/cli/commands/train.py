"""`sftn demo`, `compare`, `train-teacher` and `distill`: training from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rich.table import Table
from rich.text import Text

from sftn.cli import options
from sftn.cli.console import console, display, say, show_table
from sftn.data.dataset import Dataset
from sftn.errors import printable
from sftn.experiments import compare as comparisons
from sftn.experiments.comparison import PARETO, Comparison, size_rows
from sftn.experiments.forecast import forecast
from sftn.experiments.grid import Planned
from sftn.experiments.table import ALONE, Cell, Pair
from sftn.runs import requests
from sftn.runs import train as training
from sftn.spec import jobs
from sftn.spec.images import Images
from sftn.spec.run import Run


def demo(asked: options.Demo) -> None:
    """Run `compare` on few labelled digits: 20 training images per class, and 1,000 test images."""
    console.print(
        "Real handwritten digits, but only 20 labelled images per class: a student (resnet8, 0.08 M parameters) alone, "
        "with a standard teacher (resnet20, 0.27 M) and with one that was trained for it."
    )
    images, branches = Images(data="digits", limit=200), jobs.BranchValues(branch_kl=(0.3,))
    digits = jobs.Compare("resnet20", ("resnet8",), images=images, branches=branches)
    settings = {"seeds": asked.seeds, "training": asked.training, "execution": asked.execution, "out": asked.out}
    if not _compare(replace(digits, **settings), asked.dry_run):  # type: ignore[arg-type]
        return
    console.print(
        "Branches trained on few images hold their teacher back, so their divergence is weighted by 0.3 here; with "
        "the paper's 3, teacher and student lose 3 to 4 points (docs/results.md). The paper's gain was measured on "
        "50,000 images over 240 epochs. To find out what holds for your images, use `sftn compare`.",
    )
    console.print(
        "Next: sftn compare --teacher resnet32x4 --student resnet8x4 --data folder:DIR --epochs 30 --dry-run",
        soft_wrap=True,
    )


def compare(asked: options.Compare) -> None:
    """Run a comparison and show its table."""
    _compare(asked, asked.dry_run)


def _compare(asked: jobs.Compare, dry_run: bool) -> bool:
    """Run a comparison and show its table, or only what would be trained; whether it was run."""
    if dry_run:
        dataset = requests.load_images(asked.images)
        comparisons.announce(comparisons.checked(asked, dataset), dataset, asked)
        return False
    found = comparisons.compare(asked, watch=display.watch, overall=display.overall)
    show_table(_table(found))
    for warning in found.warnings:
        console.print(printable(warning))
    if sizes := size_rows(found.sizes()):
        show_table(_sizes(sizes))
    for sentence in found.verdict():
        console.print(printable(sentence))
    say(f"Written: {found.folder}/comparison.md and .json; each run has its own folder in {asked.out}")
    return True


def _table(found: Comparison) -> Table:
    header, *rows = found.rows()
    table = Table(title=Text(f"{found.title}\n{found.subtitle()}"))
    table.add_column(header[0], no_wrap=max(len(row[0]) for row in rows) <= 32)
    for column in header[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _sizes(rows: Sequence[Sequence[str]]) -> Table:
    header, *others = rows
    table = Table(title="Students by size", caption=PARETO)
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place in (0, 3) else "right", overflow="fold")
    for row in others:
        table.add_row(*map(Text, row))
    return table


def train_teacher(asked: options.TrainTeacher) -> None:
    """Train a student-friendly or a standard teacher."""
    run, dataset = training.teacher_run(asked)
    _announce([run], dataset, asked)
    if not asked.dry_run:
        _show(training.train_teacher(asked, dataset, watch=display.watch))


def distill(asked: options.Distill) -> None:
    """Distil a trained teacher, or several, into a student, and that into the next generation."""
    runs, dataset = training.student_runs(asked)
    _announce(runs, dataset, asked)
    if not asked.dry_run:
        for found in training.generations(asked, dataset, watch=display.watch):
            _show(found)


def _announce(runs: Sequence[Run], dataset: Dataset, asked: options.TrainTeacher | options.Distill) -> None:
    """Say what is trained, and for how long."""
    images, planned = f"{len(dataset.train):,} training images", []
    for run in runs:
        epochs = run.schedule.epochs
        how = f"{epochs} epoch{'s' * (epochs != 1)}, {run.precision}"
        say(f"{run.name}: {dataset.name}, {images}, {how}, in {asked.out / run.folder}")
        role: Literal["teacher", "student"] = "teacher" if run.teacher is None else "student"
        planned.append(Planned(Cell(Pair(run.network, run.network), role, ALONE), run))
    say(forecast(planned, dataset, asked.out, asked.execution).line)


def _show(found: training.TrainedNetwork) -> None:
    say(f"{found.run.name}: {found.scored}")
    for warning in found.warnings:
        say(f"Warning: {found.run.name} {warning}")
    say(f"Written: {found.folder}")
