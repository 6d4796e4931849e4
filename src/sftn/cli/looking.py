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
        data: digits, cifar10, cifar100, stl10, tiny-imagenet or folder:PATH; for a run, its own if not given.
        data_dir: where the files of the data set are.
        size: height and width that images of a folder are brought to.
        precision: auto, float32, bf16 or float16.
        device: auto, cpu, cuda or mps.
    """
    from sftn.commands import looking

    looking.evaluate(what, network, data, data_dir, size, precision, device)


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
    from sftn.commands import looking

    looking.describe(network, student, classes, image, branches, align)


def list_names(what: Annotated[Literal["networks", "methods", "data", "tables"], tyro.conf.Positional]) -> None:
    """What there is: networks, methods, data sets or the paper's tables, a line each."""
    from sftn.commands import looking

    looking.list_names(what)
