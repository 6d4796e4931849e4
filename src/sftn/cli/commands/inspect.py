"""`sftn evaluate`, `sftn describe` and `sftn list`: show what is known about networks, methods and data."""

from __future__ import annotations

import json
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from sftn.cli import options
from sftn.cli.console import console, say, show_table
from sftn.data.dataset import Dataset
from sftn.data.load import SOURCES, source
from sftn.errors import InputError
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES
from sftn.methods import METHODS
from sftn.methods.kd import distillation_loss
from sftn.methods.options import options as options_of
from sftn.networks import NETWORKS, build, check_name
from sftn.networks.weights import read_metadata
from sftn.runs import requests
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.spec.run import Run, Weights
from sftn.tasks import recipes
from sftn.training.evaluate import collapsed
from sftn.training.evaluate import evaluate as evaluate_network


def evaluate(asked: options.Evaluate) -> dict[str, float]:
    """Evaluate a trained network: accuracy and confidence."""
    trained = Trained.of(asked.what, asked.network)
    dataset = trained.images(asked.data, asked.data_dir, asked.size)
    fabric = make_fabric(asked.device, asked.precision)
    scale = _normalisation(trained.source, dataset)
    found = evaluate_network(trained.network(dataset).to(fabric.device), dataset.test.to(fabric.device), scale, fabric)
    values = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if key != "accuracy")
    console.print(
        f"{trained.name} on {len(dataset.test):,} test images of {dataset.name}: {found['accuracy']:.2f} % ({values})"
    )
    if collapsed(found["favourite"], dataset.test.labels):
        say(f"{trained.name} predicts the same class for nearly all images")
    return found


def describe(asked: options.Describe) -> None:
    """Show the layers of a network and of the branches that a student adds to it."""
    from sftn.profiling import summary
    from sftn.report import terminal
    from sftn.report.pages import summary as pages

    classes, image = asked.classes, asked.image
    if min(classes, *image) < 1:
        raise InputError(f"classes {classes} and image {image} must be at least 1")
    check_name(asked.network)
    channels, height, width = image
    built = build(asked.network, classes, channels, (height, width))
    if asked.student is None:
        found = summary.describe(built, image)
    else:
        check_name(asked.student)
        alignment = requests.alignment(asked.align, [asked.student])
        student = partial(build, asked.student, classes, channels, (height, width))
        found = summary.describe(built, image, student, branches=asked.branches, alignment=alignment)
    narrow = console.is_terminal and console.width < pages.WIDE
    terminal.show(pages.page(found, narrow=narrow), console)


def list_names(asked: options.List) -> None:
    """List networks, methods, data sets or tables, one per line."""
    what = asked.what
    table = Table(box=None, pad_edge=False)
    if what == "networks":
        for column in ("network", "stages", "parameters (100 classes)"):
            table.add_column(column, justify="left" if column == "network" else "right")
        for name in NETWORKS:
            with torch.device("meta"):
                net = build(name, 100)
            table.add_row(name, str(len(net.stages)), f"{sum(p.numel() for p in net.parameters()):,}")
    elif what == "methods":
        for column in ("method", "objective", "reads", "first stage", "from"):
            table.add_column(column)
        origin = "Hinton et al. 2015, Distilling the knowledge in a neural network"
        table.add_row("kd", recipes.OBJECTIVES["kd"].formula, "logits", "-", origin)
        for name, method in METHODS.items():
            first = "-" if method.warmup is METHODS["at"].warmup else "yes"
            table.add_row(name, recipes.OBJECTIVES[name].formula, method.reads, first, method.summary)
        show_table(table)
        console.print("\nOptions, as in crd(negatives=4096,temperature=0.1):0.5\n")
        table = _options()
    elif what == "tables":
        table.add_column("table")
        table.add_column("what it shows")
        for name, entry in sorted(TABLES.items()):
            table.add_row(name, entry.title)
        table.add_section()
        table.add_row("studies", "our own experiments, at a scale for a CPU")
        for name, study in STUDIES.items():
            table.add_row(name, study.grid.title)
    else:
        table.add_column("data")
        table.add_column("what it is")
        for name in SOURCES:
            table.add_row(name, (source(name).__doc__ or "").strip().splitlines()[0])
    show_table(table)


def _options() -> Table:
    """A table of the options of every method, as in `crd(negatives=4096)`."""
    table = Table(box=None, pad_edge=False)
    for column in ("method", "option", "default", "meaning", "default from"):
        table.add_column(column)
    rows = [("kd", list(options_of(distillation_loss).values()), "RepDistiller")]
    rows += [(name, list(options_of(method).values()), method.source) for name, method in METHODS.items()]
    rows.append(("any", list(recipes.WEIGHT_OPTIONS.values()), ""))
    for name, found, origin in rows:
        for option in found:
            default = str(option.default).lower() if option.kind is bool else f"{option.default:.6g}"
            table.add_row(name, option.name, default, option.meaning, origin)
    return table


def _normalisation(source: Run | Weights, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation in a network's weights file; those of the images if it has none."""
    said = read_metadata(source.path) if isinstance(source, Weights) else {}
    if not {"mean", "std"} <= said.keys():
        return dataset.normalisation
    try:
        mean, std = (torch.tensor(json.loads(said[name]), dtype=torch.float32) for name in ("mean", "std"))
    except (ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise InputError(f"{said['network']}'s file has an invalid mean or standard deviation") from error
    if mean.shape != std.shape or mean.shape != (dataset.image[0],):
        raise InputError(f"{said['network']} was trained on images of {mean.numel()} channels, not {dataset.image[0]}")
    return mean, std
