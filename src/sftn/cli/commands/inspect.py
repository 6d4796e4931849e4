"""`sftn evaluate` and `sftn describe`: what a trained network scores, and what a network consists of."""

from __future__ import annotations

from functools import partial

from rich.table import Table

from sftn.cli import options
from sftn.cli.console import console, say, show_table
from sftn.errors import InputError
from sftn.networks import build, check_name
from sftn.runs import requests
from sftn.runs.caveats import Record
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.training.evaluate import collapsed, recalls
from sftn.training.evaluate import evaluate as evaluate_network


def evaluate(asked: options.Evaluate) -> dict[str, float]:
    """Evaluate a trained network: accuracy and confidence."""
    trained = Trained.of(asked.what, asked.network)
    dataset = trained.images(asked.data, asked.data_dir, asked.size)
    fabric = make_fabric(asked.device, asked.precision)
    network, test = trained.network(dataset).to(fabric.device), dataset.test.to(fabric.device)
    found = evaluate_network(network, test, dataset.normalisation, fabric)
    judged = Record.of(
        {
            "accuracy": found["accuracy"],
            "collapsed": collapsed(found["favourite"], dataset.test.labels),
            "test": found,
            "images": {"classes": dataset.classes},
            "by_class": recalls(network, test, dataset.normalisation, fabric),
        }
    )
    values = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if key != "accuracy")
    say(f"{trained.name} on {len(test):,} test images of {dataset.name}: {found['accuracy']:.2f} % ({values})")
    if judged.unequal:
        say(f"Balanced accuracy {judged.balanced:.2f} %, because some classes have far more test images than others:")
        table = Table(box=None, pad_edge=False)
        for column in ("class", "test images", "recall %"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for name, images, recall in zip(judged.names, judged.images, judged.recall):
            table.add_row(name, f"{images:,}", "" if recall is None else f"{recall:.2f}")
        show_table(table)
    for caveat in judged.caveats():
        say(f"Warning: {trained.name} {caveat}")
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
