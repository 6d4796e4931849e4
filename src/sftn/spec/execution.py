"""How runs are carried out, which determines nothing of what comes out; without torch, so that options can name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COHORT = 8
"""Students of one teacher that are trained at once: more gain little, and come to their ends later."""


@dataclass(frozen=True)
class Execution:
    """Where, by how many processes, how fast and how safely runs are carried out.

    What determines a trained network is in a `Run`. Nothing here does, up to the rounding that `compile`,
    `deterministic`, `fast_float32` and another device or number of processes or threads bring, which is recorded with a
    result.
    """

    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Processes on each machine that share every batch; started by the first run if nothing has started them (see
    `sftn.runtime.device.join`). They decide together what is next."""
    nodes: int = 1
    """Machines."""
    jobs: str = "auto"
    """How many runs are carried out side by side, in processes of their own: a number, or auto for one per core that
    this process may use, as far as memory allows (see `sftn.experiments.workers`). Of no meaning to a single run."""
    cohort: int = COHORT
    """At most so many students of one teacher are trained at once, each to the same result as alone
    (`sftn.runs.cohort`); by one process. Of no meaning to a single run."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also write for these: tensorboard, wandb."""
    checkpoint_seconds: float = 60.0
    """The time between two checkpoints of a run; at every step if 0."""
    checkpoint_epochs: int = 0
    """Epochs between two checkpoints; if 0 they go by time."""
    deterministic: bool = False
    """Have a GPU compute the same bits again, too; changes them, so it is recorded with the result."""
    fast_float32: bool = False
    """In float32, fold frozen teachers and compute convolutions as products of matrices, 3×3 ones by Winograd's
    algorithm, where that is faster on this CPU; results differ by rounding (errors of 1e-5 of the largest value), so
    what was chosen is recorded. Half precision does so anyway."""
    teacher_cache: float = 2.0
    """GiB of memory in which a teacher's answers to crops and flips of the images are kept, and looked up where that
    changes no bit and pays (see `sftn.runs.teacher_cache`); 0 asks it every time. A cohort has one table for all. On a
    CPU, by one process."""
    compile: bool = False
    """Compile steps by PyTorch; changes only speed and rounding (see docs/speed.md). Not for cohorts."""
    cuda_graphs: bool = False
    """Record each step as one CUDA graph; changes only speed and rounding."""

    @property
    def step_mode(self) -> str:
        """How steps are taken: one of `sftn.training.step_modes.STEPS`."""
        graphs = "both" if self.compile else "captured"
        return graphs if self.cuda_graphs else "compiled" if self.compile else "eager"
