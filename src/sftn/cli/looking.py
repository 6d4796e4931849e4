"""The commands that look at what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def evaluate(
    what: Annotated[str, tyro.conf.Positional],
    network: str | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> None:
    """Accuracy and confidence of a trained network on test images.

    Args:
        what: the folder of a run, or a file of weights.
        network: the network that a file belongs to, where the file does not say it.
        data: digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH or hf:NAME; for a run, its own if
            not given.
        data_dir: where the files of the data set are.
        size: height and width that images of a folder are brought to.
        precision: auto, float32, bf16 or float16.
        device: auto, cpu, cuda or mps.
    """
    from sftn.cli.commands import inspect

    inspect.evaluate(what, network, data, data_dir, size, precision, device)


def describe(
    network: Annotated[str, tyro.conf.Positional],
    student: str | None = None,
    classes: int = 100,
    image: tuple[int, int, int] = (3, 32, 32),
    branches: tuple[int, ...] | None = None,
    align: tuple[str, ...] = (),
) -> None:
    """The layers of a network and, with a student, the branches that it would grow.

    Args:
        network: the network, or the teacher.
        student: its student.
        classes: how many.
        image: channels, height and width.
        branches: which branches, counted from 1; all if not given.
        align: which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; from the last stages if not given.
    """
    from sftn.cli.commands import inspect

    inspect.describe(network, student, classes, image, branches, align)


def list_names(what: Annotated[Literal["networks", "methods", "data", "tables"], tyro.conf.Positional]) -> None:
    """What there is: networks, methods, data sets, or the paper's tables and our studies, a line each."""
    from sftn.cli.commands import inspect

    inspect.list_names(what)


def bench(
    teacher: str = "resnet32x4",
    student: str = "resnet8x4",
    method: str = "kd",
    precision: str = "auto",
    device: str = "auto",
    seconds: float = 20.0,
    batch: int = 64,
    tables: tuple[str, ...] = ("table17", "table18"),
    table_seconds: float = 30.0,
) -> None:
    """How fast this machine trains, how near that is to its limits, and how long the paper's tables would take.

    Args:
        teacher: a network.
        student: another one.
        method: a distillation method, or a sum of them.
        precision: auto, float32, bf16 or float16.
        device: auto, cpu, cuda or mps.
        seconds: to train for.
        batch: images in a batch.
        tables: of the paper; none of them are trained, a few steps of each kind of run are timed.
        table_seconds: how long that may take for each table; kinds beyond it are taken to cost what similar ones do.
    """
    from sftn.cli.commands import bench as commands

    commands.bench(teacher, student, method, precision, device, seconds, batch, tables, table_seconds)
