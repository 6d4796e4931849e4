"""The options of every command: one record per command, without torch, so that `sftn --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from sftn.spec import jobs
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Branches
from sftn.spec.training import Precision, Training

Names: TypeAlias = tyro.conf.Positional[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class BranchOptions(Branches):
    """`Branches` for commands whose `--temperature` is that of KD."""

    temperature: Annotated[float, tyro.conf.arg(name="branch-temperature")] = 1.0
    """Temperature τ of the branches' divergence from the teacher."""


@dataclass(frozen=True, kw_only=True)
class BranchValueOptions(jobs.BranchValues):
    """`BranchValues` for a command whose `--temperature` is that of KD."""

    temperature: Annotated[tuple[float, ...], tyro.conf.arg(name="branch-temperature")] = (1.0,)
    """Temperature τ of the branches' divergence from the teacher; several values are compared."""


@dataclass(frozen=True)
class Demo:
    """Run `compare` in a few minutes on real handwritten digits, with small fixed settings."""

    seeds: tuple[int, ...] = (3,)
    """Number of seeds, or the seeds themselves if there are several: 0 1 2."""
    training: Training = Training(epochs=80, batch=32)
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; finished runs are not trained again."""
    dry_run: bool = False
    """Show what would be trained and how long it takes on this machine, and stop."""


@dataclass(frozen=True)
class Compare(jobs.Compare):
    """Train a student alone, with a standard teacher and with a student-friendly one, and compare over seeds."""

    branches: BranchValueOptions = BranchValueOptions()
    dry_run: bool = False
    """Show what would be trained and how long it takes on this machine, and stop."""


@dataclass(frozen=True)
class TrainTeacher(jobs.TrainTeacher):
    """Train a student-friendly teacher, or a standard one."""

    branches: BranchOptions = BranchOptions()
    dry_run: bool = False
    """Show what would be trained and how long it takes on this machine, and stop."""


@dataclass(frozen=True)
class Distill(jobs.Distill):
    """Distil a trained teacher into a student."""

    dry_run: bool = False
    """Show what would be trained and how long it takes on this machine, and stop."""


@dataclass(frozen=True)
class Reproduce:
    """Train and measure everything in a table of the paper or a study; shows the plan, and skips finished runs.

    It can be interrupted at any time; the same command resumes. Several processes, or machines that share the folder of
    runs, can work on the same table.
    """

    table: tyro.conf.Positional[str]
    """table11 to table19, figure4, figure5, imagenet, or one of our own studies (see sftn list tables)."""
    pairs: tuple[str, ...] = ()
    """Only these pairs, e.g. wrn_40_2:wrn_16_2."""
    methods: tuple[str, ...] = ()
    """Only these methods."""
    teachers: tuple[Literal["standard", "friendly"], ...] = ()
    """Only these kinds of teachers."""
    seeds: tuple[int, ...] | None = None
    """Number of seeds, or the seeds themselves if there are several; by default the table's own (3 in the paper)."""
    smoke: bool = False
    """Try the whole pipeline in a minute, with a tiny pair and a few digits (for imagenet: with the images in
    --data-dir, in ImageNet's layout, at 32×32)."""
    dry_run: bool = False
    """Show what would be trained and how long it takes on this machine, and stop."""
    executor: Literal["local", "ray"] = "local"
    """Run on this machine, or on a Ray cluster."""
    gpus_per_run: float = 1.0
    """For Ray: GPUs per run; 0.5 puts two runs on one GPU."""
    timing_seconds: float = 60.0
    """Time limit for estimating the duration; 0 skips the estimate."""
    to: tuple[str, ...] = ()
    """For table12: data sets to use instead of stl10 and tiny-imagenet, e.g. folder:PATH."""
    test_images: int | None = None
    """For a trial: measure on at most this many images per split (--limit applies to training)."""
    images: Images = Images(data="paper")
    training: Training = Training()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; finished runs are not trained again."""


@dataclass(frozen=True)
class Report:
    """Write reports on tables, studies and comparisons, or on runs side by side, from finished runs; never trains."""

    what: Names
    """Tables (table17 …), studies (digits …), comparisons (folders) or runs (folders or ids)."""
    out: Path = Path("runs")
    """The folder of all runs, or of archived ones; reports are written to report-TABLE or report-runs-… in it."""
    data_dir: Path | None = None
    """Folder of the data set's files; runs are evaluated on its test images if they are found."""
    device: str = "auto"
    """For evaluating runs: auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Runs:
    """Manage the folder of runs: list, show, remove, verify or archive runs; or teachers' outputs that runs share."""

    what: tyro.conf.Positional[Literal["list", "show", "rm", "verify", "keep", "cache"]]
    """list, show, rm, verify (read, hash and evaluate again), keep (archive as one small file, without weights) or
    cache (list the teachers' outputs that are kept for later runs)."""
    run: Names = ()
    """Folders, names, beginnings of ids, or last. By default, verify takes all finished runs; keep also takes studies
    and tables."""
    out: Path = Path("runs")
    """The folder of all runs; list and show also take a folder of archived runs."""
    data_dir: Path | None = None
    """For verify: folder of the data set's files."""
    device: str = "auto"
    """For verify: auto, cpu, cuda or mps."""
    to: Path = Path("results")
    """For keep: the folder of archived runs."""
    networks: tuple[str, ...] = ()
    """For keep: runs whose weights are archived as well, in its subfolder networks."""
    clear: bool = False
    """For cache: remove all stored outputs that no run uses."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a trained network on test images: accuracy and confidence."""

    what: tyro.conf.Positional[str]
    """A run (its folder, name, beginning of its id, or last for the one finished last), or a weights file."""
    network: str | None = None
    """The network that a weights file belongs to, if the file does not name it."""
    data: str | None = None
    """digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH or hf:NAME; by default the run's own."""
    data_dir: Path | None = None
    """Folder of the data set's files."""
    size: int | None = None
    """Height and width that images from files are resized to."""
    precision: Precision = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Export:
    """Export a finished run's network with normalisation, labels and a model card, and check the exported file."""

    run: tyro.conf.Positional[Path]
    """A run: its folder, its name, the beginning of its id, or last for the one finished last."""
    to: str = "onnx"
    """onnx, safetensors (which sftn and the Hugging Face Hub read) or torch-export."""
    out: Path | None = None
    """Output folder; by default export in the run's folder."""
    check_images: int = 100
    """Number of test images on which the exported file must agree with PyTorch."""
    quantize: bool = False
    """For ONNX: also export int8, and report accuracy, size and latency of student and teacher."""
    license: str | None = None
    """Licence of the weights, for the model card, e.g. mit; not stated by default."""
    data: str | None = None
    """Images to check and measure with, instead of the run's own."""
    data_dir: Path | None = None
    """Folder of the data set's files."""


@dataclass(frozen=True)
class Predict:
    """Classify image files; unreadable ones are reported, and the exit code is then 2."""

    what: tyro.conf.Positional[Path]
    """A run (folder, name, id or last), or a .onnx or .safetensors file written by sftn export."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, or folders of them."""
    top: int = 5
    """Number of classes to show per image."""
    data: str | None = None
    """For a run from an older version: the images that it was trained on."""
    data_dir: Path | None = None
    """Folder of the data set's files."""


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine trains, how close that is to its peak, and estimate the paper's tables."""

    teacher: str = "resnet32x4"
    """The teacher network."""
    student: str = "resnet8x4"
    """The student network."""
    method: str = "kd"
    """A distillation method, or a sum such as crd+kd."""
    precision: Precision = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    seconds: float = 20.0
    """How long to train for the measurement."""
    batch: int = 64
    """Images per batch."""
    tables: tuple[str, ...] = ("table17", "table18")
    """Tables of the paper to estimate, by timing a few steps of each kind of run; nothing is trained to the end."""
    table_seconds: float = 30.0
    """Time limit per table; kinds of runs that are not timed are assumed to cost as much as similar ones."""


@dataclass(frozen=True)
class Describe:
    """Show the layers of a network and, with --student, the student branches that would be added to it."""

    network: tyro.conf.Positional[str]
    """The network, or the teacher."""
    student: str | None = None
    """The student, whose branches are shown as well."""
    classes: int = 100
    """Number of classes."""
    image: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width."""
    branches: tuple[int, ...] | None = None
    """Which branches to add, counted from 1; all by default."""
    align: tuple[str, ...] = ()
    """Pairs of matching student and teacher stages, e.g. 2:1 3:2 4:3; by default matched from the last backwards."""


@dataclass(frozen=True)
class List:
    """List the available networks, methods, data sets, training recipes, or tables and studies."""

    what: tyro.conf.Positional[Literal["networks", "methods", "data", "recipes", "tables"]]
    """networks, methods, data, recipes or tables."""
