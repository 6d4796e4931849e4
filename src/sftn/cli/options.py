"""What each command can be asked for: one record a command, without torch, so that `sftn --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from sftn.spec import jobs
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Branches
from sftn.spec.training import Training

Names: TypeAlias = tyro.conf.Positional[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class BranchOptions(Branches):
    """`Branches` beside a temperature of KD."""

    temperature: Annotated[float, tyro.conf.arg(name="branch-temperature")] = 1.0
    """τ of the branches' divergence."""


@dataclass(frozen=True)
class Demo:
    """The main job in minutes, on real digits: `compare` with a small, fixed setting."""

    seeds: int = 3
    """How many seeds."""
    training: Training = Training(epochs=80, batch=32)
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; what is finished there is not trained again."""


@dataclass(frozen=True)
class Compare(jobs.Compare):
    """Compare a student alone, taught by a standard teacher and by a student-friendly one, over seeds."""

    branches: BranchOptions = BranchOptions()


@dataclass(frozen=True)
class TrainTeacher(jobs.TrainTeacher):
    """Train a teacher that is friendly to a student, or a standard one."""

    branches: BranchOptions = BranchOptions()


@dataclass(frozen=True)
class Reproduce:
    """Carry out a table of the paper, or a study: the plan is shown first, and what is finished is not repeated.

    Interrupted at any moment, the same command resumes. Several processes, or machines that share the folder of runs,
    can work on the same table.
    """

    table: tyro.conf.Positional[str]
    """table11 to table19, figure4, figure5, imagenet, or one of our own studies (sftn list tables)."""
    pairs: tuple[str, ...] = ()
    """Only these, e.g. wrn_40_2:wrn_16_2."""
    methods: tuple[str, ...] = ()
    """Only these."""
    teachers: tuple[Literal["standard", "friendly"], ...] = ()
    """Only these."""
    seeds: int | None = None
    """How many; the table's own number by default (3 in the paper)."""
    smoke: bool = False
    """Try the whole path in a minute, with a tiny pair and a few digits (for imagenet: the images of --data-dir, in its
    layout, at 32×32)."""
    plan_only: bool = False
    """Show the plan and stop."""
    executor: Literal["local", "ray"] = "local"
    """On this machine, or on a Ray cluster."""
    gpus_per_run: float = 1.0
    """For Ray; 0.5 puts two runs on one GPU."""
    timing_seconds: float = 60.0
    """How long timing for the estimate may take; 0 for no estimate."""
    to: tuple[str, ...] = ()
    """For table12: other data sets than stl10 and tiny-imagenet, such as folder:PATH."""
    test_images: int | None = None
    """Measure on at most this many images of a split, for a trial; --limit is for training."""
    images: Images = Images(data="paper")
    training: Training = Training()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; what is finished there is not trained again."""


@dataclass(frozen=True)
class Report:
    """Write the page of tables and studies, or of runs side by side, from finished runs; never trains."""

    what: Names
    """Tables (table17 …), studies (digits …) or runs (folders or ids)."""
    out: Path = Path("runs")
    """The folder of all runs, or of kept ones; the page goes to its folder report-TABLE or report-runs-…."""
    data_dir: Path | None = None
    """Where the files of the data set are; runs are evaluated on its test images, if they are found."""
    device: str = "auto"
    """For that: auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Runs:
    """What is in the folder of runs: list, show or remove runs, verify that they are what they claim, or keep them."""

    what: tyro.conf.Positional[Literal["list", "show", "rm", "verify", "keep"]]
    """list, show, rm, verify (read, hash and evaluate again) or keep (one small file per run, without weights)."""
    run: Names = ()
    """Folders, paths or beginnings of ids; verify without any takes all finished runs. keep also takes studies and
    tables."""
    out: Path = Path("runs")
    """The folder of all runs; list and show also take one of kept runs."""
    data_dir: Path | None = None
    """For verify: where the files of the data set are."""
    device: str = "auto"
    """For verify: auto, cpu, cuda or mps."""
    to: Path = Path("results")
    """For keep: the folder of kept runs."""
    networks: tuple[str, ...] = ()
    """For keep: runs whose weights are kept as well, in its folder networks."""


@dataclass(frozen=True)
class Evaluate:
    """Accuracy and confidence of a trained network on test images."""

    what: tyro.conf.Positional[str]
    """The folder of a run, or a file of weights."""
    network: str | None = None
    """The network that a file belongs to, where the file does not say."""
    data: str | None = None
    """digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH or hf:NAME; a run's own by default."""
    data_dir: Path | None = None
    """Where the files of the data set are."""
    size: int | None = None
    """Height and width that images of a folder are resized to."""
    precision: str = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Export:
    """Write a finished run's network for others: normalisation and labels inside, checked, with a model card."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    to: str = "onnx"
    """onnx, safetensors (which sftn and the Hugging Face Hub read) or torch-export."""
    out: Path | None = None
    """Where the files go; export in the run's folder by default."""
    check_images: int = 100
    """Test images on which the file must answer as PyTorch does."""
    quantize: bool = False
    """For ONNX: also int8, with accuracy, size and time of student and teacher."""
    license: str | None = None
    """Licence of the weights for the card, e.g. mit; not stated by default."""
    data: str | None = None
    """Other images than the run's own to check and measure with."""
    data_dir: Path | None = None
    """Where the files of the data set are."""


@dataclass(frozen=True)
class Predict:
    """The class of image files; one that cannot be read is named, and the exit code is then 2."""

    what: tyro.conf.Positional[Path]
    """The folder of a run, or a .onnx or .safetensors file that sftn export wrote."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Files, or folders of files."""
    top: int = 5
    """Number of classes per image."""
    data: str | None = None
    """For a run of an older version: the images that it was trained on."""
    data_dir: Path | None = None
    """Where the files of the data set are."""


@dataclass(frozen=True)
class Bench:
    """How fast this machine trains, how near that is to its limits, and how long the paper's tables would take."""

    teacher: str = "resnet32x4"
    """The teacher."""
    student: str = "resnet8x4"
    """The student."""
    method: str = "kd"
    """A distillation method, or a sum of them."""
    precision: str = "auto"
    """auto, float32, bf16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    seconds: float = 20.0
    """How long to train."""
    batch: int = 64
    """Images per batch."""
    tables: tuple[str, ...] = ("table17", "table18")
    """Tables of the paper to estimate; nothing is trained to its end, a few steps of each kind of run are timed."""
    table_seconds: float = 30.0
    """How long that may take per table; further kinds of runs are assumed to cost what similar ones do."""


@dataclass(frozen=True)
class Describe:
    """The layers of a network and, with a student, the branches that it would grow."""

    network: tyro.conf.Positional[str]
    """The network, or the teacher."""
    student: str | None = None
    """Its student."""
    classes: int = 100
    """Number of classes."""
    image: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width."""
    branches: tuple[int, ...] | None = None
    """Which branches, counted from 1; all by default."""
    align: tuple[str, ...] = ()
    """Which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; by default the last stages backwards."""


@dataclass(frozen=True)
class List:
    """What there is: networks, methods, data sets, or the paper's tables and our studies, one per line."""

    what: tyro.conf.Positional[Literal["networks", "methods", "data", "tables"]]
    """networks, methods, data or tables."""


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
    look: LookOptions = LookOptions()


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
    look: LookOptions = LookOptions()


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
    look: LookOptions = LookOptions()


@dataclass(frozen=True)
class Entropy:
    """Entropy and calibration of the outputs on training and test images (Table 13)."""

    runs: Names
    """Folders of runs, or files of weights."""
    bins: int = 15
    """Of the expected calibration error."""
    look: LookOptions = LookOptions()


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
    Annotated[Corruption, tyro.conf.subcommand("corruption")]
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
    | Annotated[Similarity, tyro.conf.subcommand("similarity")]
    | Annotated[Entropy, tyro.conf.subcommand("entropy")]
    | Annotated[Curves, tyro.conf.subcommand("curves")]
)


@dataclass(frozen=True)
class Analyse:
    """Corruption, transfer, similarity, entropy or curves of trained networks, as table, JSON, CSV and figure."""

    analysis: Analysis
