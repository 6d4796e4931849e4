"""How runs are executed: device, processes and speed, none of which determines the trained network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sftn.errors import InputError

COHORT = 8
"""Students of one teacher that are trained at once: more gain little, and each finishes later."""
MOST_THREADS = 1024
"""Of a run: far beyond this, an operating system refuses to start them, which ends the process."""


@dataclass(frozen=True)
class Execution:
    """Where and with how many processes runs are executed, how fast, and how often they are saved.

    Everything that determines a trained network is in a `Run`. Nothing here does, except for rounding: `compile`,
    `deterministic`, `fast_float32`, the device and the number of processes or threads may change it and are recorded
    with the result.
    """

    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Processes per machine, which share every batch; the first run starts them unless a launcher already has (see
    `sftn.runtime.device.join`)."""
    nodes: int = 1
    """Number of machines."""
    jobs: str = "auto"
    """How many runs are trained side by side, each in its own process: a number, or auto for one per core available to
    this process, as far as memory allows (see `sftn.experiments.workers`). Has no effect on a single run."""
    threads: str = "auto"
    """Threads of a run on a CPU: a number, or auto for what a short trial of its steps finds faster (see
    `sftn.runs.threads`). Runs side by side have their shares of the cores instead."""
    cohort: int = COHORT
    """Maximum number of students of one teacher that are trained at once, in one process, each with the same result as
    alone (`sftn.runs.cohort`). Has no effect on a single run."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these: tensorboard, wandb."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints of a run; 0 saves at every step."""
    checkpoint_epochs: int = 0
    """Epochs between two checkpoints; 0 saves by time instead."""
    deterministic: bool = False
    """Use deterministic algorithms on a GPU, too; changes rounding, so it is recorded with the result."""
    fast_float32: bool = False
    """In float32, fold frozen teachers and compute convolutions as matrix products, 3×3 ones by Winograd's algorithm,
    where that is faster on this CPU; changes rounding (errors of 1e-5 of the largest value), so the choice is recorded.
    Half precision always does this."""
    teacher_cache: float | Literal["off"] = 2.0
    """GiB of disk for teachers' outputs for crops and flips of the images, which all runs on the machine share
    (`sftn runs cache`), or of memory where the disk cannot be used; used on a CPU, with one process, where it saves
    time and changes no bit (see `sftn.runs.teacher_cache`). off, or 0, runs the teacher every time."""
    compile: bool = False
    """Compile training steps; changes only speed and rounding (see docs/speed.md). Not for cohorts."""
    cuda_graphs: bool = False
    """Capture each training step as one CUDA graph; changes only speed and rounding."""

    @property
    def thread_count(self) -> int | None:
        """`threads` as a number; None for auto.

        Raises:
            InputError: it is neither a number from 1 to `MOST_THREADS` nor auto.
        """
        asked = str(self.threads)
        if asked == "auto":
            return None
        if not (asked.isdecimal() and asked.isascii() and 1 <= int(asked[:9]) <= MOST_THREADS):
            raise InputError(f"threads is {asked}: give a number of threads per run, 1 to {MOST_THREADS}, or auto")
        return int(asked)

    @property
    def cache_gib(self) -> float:
        """`teacher_cache` as a number, 0 for off.

        Raises:
            InputError: it is neither GiB nor off.
        """
        gib = 0.0 if self.teacher_cache == "off" else self.teacher_cache
        if not isinstance(gib, int | float) or not 0 <= gib < math.inf:
            raise InputError(f"teacher_cache is {gib}: give GiB, or off to run the teacher on every batch")
        return gib

    @property
    def step_mode(self) -> str:
        """How training steps are run: one of `sftn.training.step_modes.STEPS`."""
        graphs = "both" if self.compile else "captured"
        return graphs if self.cuda_graphs else "compiled" if self.compile else "eager"
