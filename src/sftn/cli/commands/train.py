"""`sftn demo`, `compare`, `train-teacher` and `distill`: training from the command line."""

from __future__ import annotations

from dataclasses import replace

from rich.table import Table
from rich.text import Text

from sftn.cli import options
from sftn.cli.console import console, say, show_table, watch
from sftn.experiments import compare as comparisons
from sftn.runs import train as training
from sftn.spec import jobs
from sftn.spec.images import Images
from sftn.spec.run import Branches


def demo(asked: options.Demo) -> None:
    """Run `compare` on few labelled digits: 20 training images per class, and 1,000 test images."""
    console.print(
        "Real handwritten digits, but only 20 labelled images per class: a student (resnet8, 0.08 M parameters) alone, "
        "with a standard teacher (resnet20, 0.27 M) and with one that was trained for it."
    )
    digits = jobs.Compare(images=Images(data="digits", limit=200), branches=Branches(branch_kl=0.3))
    compare(replace(digits, seeds=asked.seeds, training=asked.training, execution=asked.execution, out=asked.out))
    console.print(
        "Branches trained on few images hold their teacher back, so their divergence is weighted by 0.3 here; with "
        "the paper's 3, teacher and student lose 3 to 4 points (docs/results.md). The paper's gain was measured on "
        "50,000 images over 240 epochs. To find out what holds for your images, use `sftn compare`.",
    )
    console.print("Next: sftn compare --data cifar100 --data-dir DIR --epochs 30, or sftn list methods", soft_wrap=True)


def compare(asked: jobs.Compare) -> None:
    """Run a comparison and show its table."""
    found = comparisons.compare(asked, watch=watch)
    show_table(_table(found))
    for sentence in found.verdict():
        console.print(sentence, markup=False)
    say(f"Written: {found.folder}/comparison.md and .json; each run has its own folder in {asked.out}")


def _table(found: comparisons.Comparison) -> Table:
    header, *rows = found.rows()
    table = Table(title=Text(f"{found.title}\n{found.subtitle()}"))
    table.add_column(header[0], no_wrap=max(len(row[0]) for row in rows) <= 32, overflow="fold")
    for column in header[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def train_teacher(asked: jobs.TrainTeacher) -> None:
    """Train a student-friendly or a standard teacher."""
    _show(training.train_teacher(asked, watch=watch))


def distill(asked: jobs.Distill) -> None:
    """Distil a trained teacher into a student."""
    _show(training.distill(asked, watch=watch))


def _show(found: training.TrainedNetwork) -> None:
    say(f"{found.run.name}: {found.accuracy:.2f} % (best epoch {found.best_accuracy:.2f} %)")
    say(f"Written: {found.folder}")
