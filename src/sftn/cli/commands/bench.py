"""`sftn bench`: measure this machine, and estimate how long the paper's tables would take on it."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sftn.cli import options
from sftn.cli.console import say, show_table
from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments import paper
from sftn.experiments.grid import Conditions, grid
from sftn.networks import check_name
from sftn.profiling.estimate import duration, estimate
from sftn.profiling.roofline import machine, measure_ceiling
from sftn.profiling.throughput import Loop, Speed, measure, noise
from sftn.runtime.device import settle_precision
from sftn.spec.run import Data
from sftn.spec.schedule import Schedule


def bench(asked: options.Bench, dataset: Dataset | None = None) -> Speed:
    """Measure a pair and method on random images, then time a few steps of each kind of run in the tables."""
    seconds, batch, device = asked.seconds, asked.batch, asked.device
    if not seconds > 0:
        raise InputError(f"seconds {seconds:g}: give more than 0")
    if batch < 2:
        raise InputError(f"batch {batch}: give at least 2")
    for name in (asked.teacher, asked.student):
        check_name(name)
    grids = [paper.table(name) for name in asked.tables]
    precision = settle_precision(asked.precision, device)
    dataset = noise() if dataset is None else dataset
    say(f"{asked.teacher} → {asked.student}, {asked.method}, batch {batch}, {precision}; {machine()}")
    pair = (asked.teacher, asked.student, asked.method)
    loop = Loop(*pair, dataset, precision=precision, device=device, batch=batch)
    speed = measure(loop, dataset, seconds)
    ceiling = measure_ceiling(precision, device)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("part of a step", "ms", "share"):
        shown.add_column(column, justify="left" if column.startswith("part") else "right")
    total = sum(speed.parts.values())
    for part, spent in speed.parts.items():
        shown.add_row(part, f"{1000 * spent:.1f}", f"{100 * spent / total:.0f} %")
    show_table(shown)
    say(f"{speed.images_per_second:.0f} images/s in training, {1000 * speed.step:.0f} ms a step, loader included")
    say(
        f"{100 * speed.share(ceiling):.0f} % of this machine's arithmetic: {speed.flop / 1e9:.2f} GFLOP an image, of "
        f"{ceiling.arithmetic:.0f} GFLOP/s (matrix products {ceiling.product:.0f}, convolutions "
        f"{ceiling.convolution:.0f}; copies {ceiling.bandwidth:.0f} GB/s)"
    )
    say(f"{speed.memory / 2**20:.0f} MiB at most; 240 epochs of 50,000 images: {duration(_of_cifar(speed, dataset))}")
    conditions = Conditions(Data("cifar100", "0" * 16), Schedule(), precision)
    for table in grids:
        runs = {item.run.id: item.run for item in grid(table, conditions, table.seeds)}
        found = estimate(list(runs.values()), dataset, Path("nowhere"), device=device, budget=asked.table_seconds)
        if found is not None:
            say(f"{table.name}: {len(runs)} runs, {duration(found.hours)} one after the other ({found.how})")
    return speed


def _of_cifar(speed: Speed, dataset: Dataset) -> float:
    return speed.hours * 50_000 / len(dataset.train)
