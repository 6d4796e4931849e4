"""How many threads a run computes with on a CPU: as asked, as it began, or as a short trial finds faster.

More threads are no gain by themselves: on small networks they wait for each other, and as soon as another process holds
one of the cores, every operation waits for the thread that is not running. So a trial takes a few training steps with
one thread, then with half of the cores and with all of them. It trains a network of its own on noise, in the eager
mode, with plain convolutions, and leaves nothing behind: neither the run's random numbers nor what is kept of
convolutions. The bits of a run depend on its threads, so their number is kept in its checkpoints and its result, and a
resume on the same machine goes on with it.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sftn.data.batch import Batch
from sftn.data.dataset import Dataset
from sftn.networks import PRETRAINED
from sftn.networks.fast.product_choices import Choices, Table
from sftn.runs.build import new_network, plan, teacher_of
from sftn.runtime.collectives import world
from sftn.runtime.cores import usable_cores
from sftn.runtime.environment import processor
from sftn.runtime.processes import leads
from sftn.spec.execution import MOST_THREADS
from sftn.spec.run import Run
from sftn.storage.records import decode
from sftn.training.checkpoints import recorded
from sftn.training.loop import stepwise

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)
GAIN = 1.1
"""More threads must be this many times as fast as fewer: what gains less is left to other processes."""
COLLAPSED = 2.0
"""From this many times the time of fewer threads, still more are not tried."""
FEW_STEPS = 100
"""A run with fewer steps gets one thread: a trial takes at least four."""
SHORT = 20.0
"""Seconds with one thread below which a run gets one thread: a trial takes up to three, more on a busy machine."""
_STEPS, _SECONDS = 6, 1.0
"""Most steps with a number of threads, and seconds after which no further one begins, unless it would be the second."""


@contextmanager
def threads_kept() -> Iterator[None]:
    """A context after which this process computes with as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads(NamedTuple):
    """A number of threads, and the machine that it was settled on; kept in a run's checkpoints."""

    number: int
    processor: str
    cores: int
    """Those that this process may use."""


def settle_threads(run: Run, dataset: Dataset, folder: Path, asked: int | None, fabric: Fabric) -> Threads:
    """Let this process compute with the threads of a run; one line of the log says how many and why.

    Nothing is chosen for a GPU, or for several processes that share every batch: unless a number is asked for, these
    keep the one that they were started with.

    Args:
        run: the run that is about to be trained.
        dataset: its images.
        folder: the run's folder, whose checkpoint says how it began.
        asked: the number of threads; None to go on as it began, or to choose.
        fabric: device and precision.

    Raises:
        InputError: a checkpoint cannot be opened.
    """
    model, cores = processor(), usable_cores()
    single = fabric.device.type == "cpu" and world() == 1
    began = _began(folder) if single else None
    if asked is not None:
        number = asked
        if number > cores and leads():
            warn_of_cores(number, cores)
        if began is not None and began.number != number:
            logger.warning(
                f"{run.name} began with {counted(began.number)} and goes on with {number}: its last bits may differ"
            )
    elif not single:
        number = torch.get_num_threads()
    elif began is not None and began[1:] == (model, cores):
        number = began.number
        logger.info(f"{counted(number)}, as it began")
    else:
        if began is not None:
            logger.info(
                f"{run.name} began on another machine ({began.processor}, {_cores(began.cores)}; here {model}, "
                f"{_cores(cores)}): its threads are chosen again, and its last bits may differ"
            )
        number, why = _chosen(run, dataset, fabric, min(cores, torch.get_num_threads()))
        if why:
            logger.info(f"{counted(number)}: {why}")
    torch.set_num_threads(number)
    return Threads(number, model, cores)


def use_recorded(environment: Mapping[str, Any]) -> None:
    """Let this process compute with the threads that a result of a CPU records, for the same bits.

    Args:
        environment: the result's.
    """
    if str(environment.get("device")).startswith("cpu") and _possible(environment.get("threads")):
        torch.set_num_threads(environment["threads"])


def choose(seconds: Callable[[int], float], cores: int, steps: int) -> tuple[int, str]:
    """Choose a number of threads: the fewest that no larger number tried beats by more than a tenth.

    Args:
        seconds: takes a training step with a number of threads and returns its time.
        cores: the most threads; one, half of them and all are tried.
        steps: how many the run takes.

    Returns:
        The number, and the reason in words.
    """
    found = {1: _median(seconds, 1, None)}
    if found[1] * steps < SHORT:
        return 1, f"the run takes about {found[1] * steps:.0f} s, too short to try more"
    best = 1
    for number in sorted({max(1, cores // 2), cores} - {1}):
        found[number] = _median(seconds, number, found[best])
        if found[number] * GAIN <= found[best]:
            best = number
        elif found[number] > COLLAPSED * found[best]:
            break
    words = [] if best == 1 else [f"{_times(found[1] / found[best])} as fast as 1"]
    return best, "; ".join(words + [_beaten(other, found[other] / found[best]) for other in found if other > best])


def counted(threads: int) -> str:
    """A number of threads in words."""
    return f"{threads} thread{'s' * (threads != 1)}"


def _median(seconds: Callable[[int], float], number: int, best: float | None) -> float:
    """The median time of a few steps, without the first, which prepares kernels, unless that alone has collapsed."""
    taken = [seconds(number)]
    if best is not None and taken[0] > max(_SECONDS, COLLAPSED * best):
        return taken[0]
    while len(taken) < 2 or (len(taken) < _STEPS and sum(taken) < _SECONDS):
        taken.append(seconds(number))
    return statistics.median(taken[1:])


def _beaten(number: int, ratio: float) -> str:
    if ratio < 1:
        return f"{counted(number)} are only {_times(1 / ratio)} as fast"
    busy = " (another process is probably busy)" if ratio > COLLAPSED else ""
    return f"{counted(number)} take {_times(ratio)} as long{busy}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.2f} times"


def _began(folder: Path) -> Threads | None:
    """What a run's newest checkpoint says of its threads, if it says so."""
    try:
        found = decode(Threads, recorded(folder)["threads"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if _possible(found.number) else None


def _possible(number: Any) -> bool:
    return type(number) is int and 1 <= number <= MOST_THREADS


@cache
def warn_of_cores(threads: int, cores: int) -> None:
    """Say that there are more threads than cores, once per process: a table has many runs."""
    logger.warning(f"{threads} threads on {_cores(cores)} wait for each other: --threads auto is faster")


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"


def _chosen(run: Run, dataset: Dataset, fabric: Fabric, cores: int) -> tuple[int, str]:
    steps = run.schedule.epochs * -(-len(dataset.train) // run.schedule.batch)
    if cores == 1:
        return 1, ""
    if steps < FEW_STEPS:
        return 1, f"{steps} steps are too few to try more"
    with threads_kept(), torch.random.fork_rng(devices=[]):
        return choose(_Trial(run, dataset, fabric), cores, steps)


class _Trial:
    """Takes steps of a run's main phase with new networks on one batch of noise; each call returns its seconds."""

    def __init__(self, run: Run, dataset: Dataset, fabric: Fabric) -> None:
        def new(name: str) -> Any:
            return new_network(name.removesuffix(PRETRAINED), dataset)

        teacher = teacher_of(run, lambda source: new(source.network))
        plain = Choices(Table("", None, lambda layer: ""))
        planned = plan(run, new(run.network), dataset, teacher, choices=plain)
        loader = _SameBatch(dataset, run.schedule.batch, planned.copies)
        self._steps = stepwise(planned.phases[-1], loader, fabric)
        next(self._steps)

    def __call__(self, threads: int) -> float:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        next(self._steps)
        return time.perf_counter() - began


class _SameBatch:
    """A loader of one batch of noise, again and again: the time of a step does not depend on the content of images."""

    views = None

    def __init__(self, dataset: Dataset, batch: int, copies: int) -> None:
        count, labels = min(batch, len(dataset.train)), dataset.train.labels
        index = torch.linspace(0, len(labels) - 1, count).long()
        images = torch.randn(count * copies, *dataset.image).contiguous(memory_format=torch.channels_last)
        self._batch = Batch(images, labels[index], index)

    def outcomes(self, epoch: int) -> Tensor | None:
        """None: views are not numbered."""
        return None

    def __len__(self) -> int:
        """More steps than a trial takes."""
        return 1_000_000

    def images(self, step: int) -> int:
        """Number of images in a step."""
        return len(self._batch.labels)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batch, at every step."""
        for _ in range(start, len(self)):
            yield self._batch
