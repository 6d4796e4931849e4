"""The options of `sftn analyse`: one record per analysis, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

from sftn.cli.options import Names
from sftn.spec.training import Precision


@dataclass(frozen=True)
class LookOptions:
    """Options that all analyses of networks share."""

    network: str | None = None
    """The network that weights files belong to, if they do not name it."""
    data: str | None = None
    """digits, cifar10, cifar100, stl10, tiny-imagenet or folder:PATH; by default the images of the first run."""
    data_dir: Path | None = None
    """Folder of the data set's files."""
    size: int | None = None
    """Height and width that images are resized to."""
    precision: Precision = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: Path = Path("runs")
    """Output folder; each analysis gets a subfolder."""
    figure: bool = True
    """Draw figures (needs the extra report)."""


@dataclass(frozen=True)
class Corruption:
    """Measure accuracy under the 19 corruptions of CIFAR-C at severities 1 to 5 (Table 11)."""

    runs: Names
    """Folders of runs, or weights files."""
    corruptions: tuple[str, ...] = ()
    """Only these corruptions; all 19 by default."""
    reference: str | None = None
    """The run or weights file whose errors define an mCE of 100 %."""
    corrupted: Path | None = None
    """Folder of the official .npy files; by default they are looked for in the data, or generated in OUT/corrupted."""
    seed: int = 0
    """Random seed of generated corruptions."""
    threads: int | None = None
    """Threads for generating corruptions; by default one per core."""
    look: LookOptions = LookOptions()


@dataclass(frozen=True)
class Transfer:
    """Train a linear classifier on frozen features for other images (Table 12)."""

    runs: Names
    """Folders of runs, or weights files."""
    to: tuple[str, ...] = ("stl10", "tiny-imagenet")
    """Target data sets: stl10, tiny-imagenet, folder:PATH or any other."""
    epochs: int = 100
    """Epochs of the classifier; its learning rate drops at 30 %, 60 % and 90 % of them."""
    seed: int = 0
    """Random seed of the classifier's initial weights and batches."""
    limit: int | None = None
    """Train on this many images only."""
    look: LookOptions = LookOptions()


@dataclass(frozen=True)
class Similarity:
    """Measure how similar a teacher and its student are: KL divergence, linear CKA, top-1 agreement (Table 19)."""

    runs: Names
    """Folders of distilled runs, or weights files of students."""
    teacher: str | None = None
    """One teacher for all of them, as a run or weights file; by default each run's own teacher."""
    teacher_network: str | None = None
    """The network that the teacher's weights file belongs to, if the file does not name it."""
    minibatch: int = 256
    """Images per term of the minibatch estimate of CKA."""
    look: LookOptions = LookOptions()


@dataclass(frozen=True)
class Entropy:
    """Measure entropy and calibration of the outputs on training and test images (Table 13)."""

    runs: Names
    """Folders of runs, or weights files."""
    bins: int = 15
    """Number of bins of the expected calibration error."""
    look: LookOptions = LookOptions()


@dataclass(frozen=True)
class Curves:
    """Plot divergence and test accuracy by epoch (Figure 5), and teachers' against students' accuracy (Figure 4)."""

    runs: Names
    """Folders of runs."""
    out: Path = Path("runs")
    """Output folder; each analysis gets a subfolder."""
    figure: bool = True
    """Draw figures (needs the extra report)."""


Analysis: TypeAlias = (
    Annotated[Corruption, tyro.conf.subcommand("corruption")]
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
    | Annotated[Similarity, tyro.conf.subcommand("similarity")]
    | Annotated[Entropy, tyro.conf.subcommand("entropy")]
    | Annotated[Curves, tyro.conf.subcommand("curves")]
)


@dataclass(frozen=True)
class Analyse:
    """Analyse trained networks (corruption, transfer, similarity, entropy, curves) as table, JSON, CSV and figure."""

    analysis: Analysis
