"""What `sftn analyse` can be asked for, without torch, so that `sftn --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

Names: TypeAlias = Annotated[tuple[str, ...], tyro.conf.Positional]


@dataclass(frozen=True)
class LookOptions:
    """What every analysis of networks takes."""

    network: str | None = None
    """The network that files of weights belong to, where they do not say it."""
    data: str | None = None
    """digits, cifar10, cifar100, stl10, tiny-imagenet or folder:PATH; those of the first run if not given."""
    data_dir: Path | None = None
    """Where the files of the data set are."""
    size: int | None = None
    """Height and width that the images are brought to."""
    precision: str = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: Path = Path("runs")
    """Where the tables and figures are written, in a folder of their own."""
    figure: bool = True
    """Draw it (needs the extra report)."""


Look: TypeAlias = Annotated[LookOptions, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Corruption:
    """Accuracy under the 19 corruptions of CIFAR-C at severities 1 to 5 (Table 11)."""

    runs: Names
    """Folders of runs, or files of weights."""
    corruptions: tuple[str, ...] = ()
    """Only these; all 19 if not given."""
    reference: str | None = None
    """A run or file whose errors are 100 % of mCE."""
    corrupted: Path | None = None
    """Where the official .npy files are; if not given, looked for among the data, else generated in OUT/corrupted."""
    seed: int = 0
    """Of generated corruptions."""
    threads: int | None = None
    """For generating; every core if not given."""
    look: Look = LookOptions()


@dataclass(frozen=True)
class Transfer:
    """Frozen features and a linear classifier on other images (Table 12)."""

    runs: Names
    """Folders of runs, or files of weights."""
    to: tuple[str, ...] = ("stl10", "tiny-imagenet")
    """To which images: stl10, tiny-imagenet, folder:PATH or any other data set."""
    epochs: int = 100
    """Of the classifier; the rate falls at 30, 60 and 90 of 100."""
    seed: int = 0
    """Of the classifier's start and batches."""
    limit: int | None = None
    """Only so many training images."""
    look: Look = LookOptions()


@dataclass(frozen=True)
class Similarity:
    """How alike a teacher and its student are: KL divergence, linear CKA, top-1 agreement (Table 19)."""

    runs: Names
    """Folders of distilled runs, or files of students' weights."""
    teacher: str | None = None
    """The run or file of the teacher of all of them; the teacher of each run if not given."""
    teacher_network: str | None = None
    """The network that the teacher's file belongs to, where the file does not say it."""
    minibatch: int = 256
    """Images of one term of the minibatch estimate of CKA."""
    look: Look = LookOptions()


@dataclass(frozen=True)
class Entropy:
    """Entropy and calibration of the outputs on training and test images (Table 13)."""

    runs: Names
    """Folders of runs, or files of weights."""
    bins: int = 15
    """Of the expected calibration error."""
    look: Look = LookOptions()


@dataclass(frozen=True)
class Curves:
    """Divergence and test accuracy by epoch (Figure 5); teachers' against students' accuracy (Figure 4)."""

    runs: Names
    """Folders of runs."""
    out: Path = Path("runs")
    """Where the tables and figures are written, in a folder of their own."""
    figure: bool = True
    """Draw it (needs the extra report)."""


Analysis: TypeAlias = (
    Annotated[Corruption, tyro.conf.subcommand("corruption", prefix_name=False)]
    | Annotated[Transfer, tyro.conf.subcommand("transfer", prefix_name=False)]
    | Annotated[Similarity, tyro.conf.subcommand("similarity", prefix_name=False)]
    | Annotated[Entropy, tyro.conf.subcommand("entropy", prefix_name=False)]
    | Annotated[Curves, tyro.conf.subcommand("curves", prefix_name=False)]
)
