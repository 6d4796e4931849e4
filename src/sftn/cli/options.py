"""The options that commands share, without torch, so that `sftn --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sftn.spec.execution import COHORT, Conduct


@dataclass(frozen=True)
class DataOptions:
    """Which images."""

    data: str = "digits"
    """digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH (one folder a class) or hf:NAME."""
    data_dir: Path | None = None
    """Where the files of the data set are."""
    limit: int | None = None
    """Train on so many images, the same number of each class."""
    classes: int | None = None
    """Only the first so many classes."""
    size: int | None = None
    """Height and width that images of files (and of STL-10) are brought to."""
    download: bool = False
    """Fetch missing files from the data set's official address."""
    stream: bool = False
    """Read images when they are wanted, with random parts of them in training, even if --memory would hold them."""
    memory: float = 4.0
    """GiB of decoded images that are kept in memory; more are streamed."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Refuse images that cannot be decoded, or leave them out; streamed ones are then all read once first."""
    workers: int = 2
    """Processes that read streamed images; 0 for none but this one. Changes nothing but speed."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train."""

    recipe: str = "paper"
    """paper (240 epochs), short (30), smoke (1) or imagenet (100); the other options change single values of it."""
    epochs: int | None = None
    """Epochs of the main phase; first stages and milestones keep their share."""
    batch: int | None = None
    """Images in a batch."""
    lr: float | None = None
    """Learning rate at the start; of all networks."""
    milestones: tuple[float, ...] | None = None
    """When the rate falls to a tenth: epochs (150 180 210) or fractions of the run (0.625 0.75 0.875)."""
    precision: str = "auto"
    """auto, float32, bf16 or float16; losses are always float32."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Processes on each machine that share every batch, one a GPU (or on CPUs); changes nothing but speed."""
    nodes: int = 1
    """Machines; start the command on each by torchrun, or with MASTER_ADDR, MASTER_PORT and NODE_RANK set."""
    cohort: int = COHORT
    """At most so many students of one teacher are trained at once, each to the same result as alone; 1 for one by one.
    Of compare and reproduce, with one process."""
    ask_once: float = 2.0
    """GiB of memory for a teacher's answers to crops and flips of the images, which are kept where the method needs no
    more of it than logits and embedding and enough come twice; no bit changes. 0 never. On a CPU, with one process."""
    sync_bn: bool = True
    """Batch norm over the whole batch; else each process normalises by its share, which is another run."""
    out: Path = Path("runs")
    """The folder of all runs; what is done there is not done again."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also write for TensorBoard, or Weights & Biases (offline unless you are logged in there)."""
    tensorboard: bool = False
    """The same as --log tensorboard."""
    checkpoint_seconds: float = 60.0
    """The time between two checkpoints; one that took long to write puts the next one off."""
    checkpoint_epochs: int = 0
    """Epochs between two checkpoints; 0 goes by time."""
    on_nan: Literal["stop", "skip", "restart"] = "stop"
    """When a number is not finite: end the run, skip the step, or begin again with half the rate (3 times at most)."""
    deterministic: bool = False
    """On a GPU, too, the same bits from the same seed; slower."""
    step: Literal["eager", "compiled", "captured", "both"] = "eager"
    """How steps are taken: eager, compiled by PyTorch, captured as one CUDA graph, or both. Changes only speed and
    rounding; see docs/speed.md."""

    @property
    def loggers(self) -> tuple[str, ...]:
        """Those asked for, by either option."""
        return tuple(dict.fromkeys((*self.log, *["tensorboard"] * self.tensorboard)))

    @property
    def conduct(self) -> Conduct:
        """How runs are to be carried out."""
        return Conduct(
            device=self.device,
            devices=self.devices,
            nodes=self.nodes,
            cohort=self.cohort,
            log=self.loggers,
            checkpoint_seconds=self.checkpoint_seconds,
            checkpoint_epochs=self.checkpoint_epochs,
            deterministic=self.deterministic,
            ask_once=self.ask_once,
            step=self.step,
        )


@dataclass(frozen=True)
class FriendlyOptions:
    """How a teacher is made student-friendly; the defaults are the paper's."""

    branches: tuple[int, ...] | None = None
    """Which branches to grow, counted from 1; all if not given."""
    teacher_ce: float = 1.0
    """λ_T, the weight of the teacher's own cross-entropy."""
    branch_kl: float = 3.0
    """λ_R^KL, the weight of the branches' divergence from the teacher."""
    branch_ce: float = 1.0
    """λ_R^CE, the weight of the branches' cross-entropy."""
    branch_temperature: float = 1.0
    """τ of that divergence."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the branches."""
    detach: bool = False
    """Keep the divergence's gradient from the teacher's logits."""


@dataclass(frozen=True)
class FineTuneOptions:
    """How a teacher that comes with trained weights (NAME@pretrained) learns on."""

    backbone_rate: float | None = None
    """Learning rate of its stem and stages, over that of its new classifier; 1 if not given."""
    frozen_stages: int = 0
    """So many of its stages stay as they are, and its stem with them."""


Data = Annotated[DataOptions, tyro.conf.arg(name="")]
Train = Annotated[TrainOptions, tyro.conf.arg(name="")]
FineTune = Annotated[FineTuneOptions, tyro.conf.arg(name="")]
FriendlyTo = Annotated[FriendlyOptions, tyro.conf.arg(name="")]
