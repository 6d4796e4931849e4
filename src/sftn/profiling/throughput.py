"""Training throughput on this machine: images per second, the time of each part of a step, and operations per image."""

from __future__ import annotations

import copy
import itertools
import math
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sftn.data.dataset import Dataset, Split
from sftn.data.loader import training_batches
from sftn.networks import build
from sftn.networks.fast.product_choices import Choices
from sftn.networks.staged import Activations, StagedNet
from sftn.profiling.roofline import Ceiling
from sftn.runs.build import evaluation_interval
from sftn.runtime.device import make_fabric, settle_precision, wait
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.speedups import speed_up
from sftn.training.loop import set_up

PARTS = ("data", "teacher", "student", "loss", "backward", "optimiser")
_LEAST = 5
"""Minimum number of timed steps, after two that are not timed."""


@dataclass(frozen=True)
class Speed:
    """The speed of a whole training loop, including the loader."""

    images_per_second: float
    step: float
    """Median seconds per step."""
    parts: dict[str, float]
    """Median seconds of each of `PARTS`, from steps other than those of `step`, with a clock around every part."""
    flop: float
    """Floating-point operations per image: teacher forward, student forward and backward, and loss."""
    memory: int
    """Peak memory in bytes: of the GPU, or of the whole process on a CPU."""
    hours: float
    """Hours that 240 epochs take, with their evaluations."""

    def share(self, ceiling: Ceiling) -> float:
        """The share of the machine's peak arithmetic speed that training reaches, from 0 to 1."""
        return self.images_per_second * self.flop / 1e9 / ceiling.arithmetic


def noise(images: int = 50_000, tests: int = 10_000, classes: int = 100, size: int = 32) -> Dataset:
    """Random images in CIFAR's shape, because the time of a step does not depend on the content of images."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.arange(count) % classes)

    return Dataset("noise", split(images), split(tests), tuple(map(str, range(classes))), flip=True, padding=4)


class Loop:
    """The training loop of a pair with a method, as in a run, one step at a time.

    Args:
        teacher: the teacher's network name.
        student: the student's network name.
        method: the objective, as for `--method`.
        dataset: the images; `noise()` is enough.
        precision: auto, float32, bf16 or float16.
        device: auto, cpu, cuda or mps.
        batch: images per step.
        prepared: whether to apply the speedups of `sftn.tasks.speedups`.
        choices: which convolutions are computed as matrix products; None chooses what is faster on this machine.
        fast_float32: as in `sftn.spec.execution.Execution`.

    Raises:
        InputError: a name is unknown, or the networks cannot be paired.
    """

    def __init__(
        self,
        teacher: str,
        student: str,
        method: str,
        dataset: Dataset,
        *,
        precision: str = "auto",
        device: str = "auto",
        batch: int = 64,
        prepared: bool = True,
        choices: Choices | None = None,
        fast_float32: bool = False,
    ) -> None:
        self.fabric = make_fabric(device, precision)
        self.device, self.batch = self.fabric.device, batch
        channels, height, width = dataset.image
        ours, theirs = (build(name, len(dataset.classes), channels, (height, width)) for name in (student, teacher))
        self.task = task = Distiller(ours, theirs, objective(method), dataset.image, labels=dataset.train.labels)
        self.flop = count(task)
        if prepared:
            speed_up(task, settle_precision(precision, device), choices, fast_float32=fast_float32)
        phase = task.phases(Schedule(batch=batch, lr=1e-3))[-1]
        self.forward, self.optimizer, _ = set_up(phase, self.fabric)
        self.loader = training_batches(dataset, batch=batch, flip=task.flip, copies=task.copies, device=self.device)
        epochs = (self.loader.epoch(epoch) for epoch in itertools.count())
        self.batches = (one for epoch in epochs for one in epoch if len(one.labels) == batch)

    def step(self, clock: Callable[[str], AbstractContextManager[None]] = lambda part: nullcontext()) -> float:
        """Take a step; returns its seconds, including the wait for the device."""
        began = time.perf_counter()
        with clock("data"):
            batch = next(self.batches)
        with clock("forward"):
            loss = self.forward(*batch)["loss"]
        with clock("backward"):
            self.fabric.backward(loss)
        with clock("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        wait(self.device)
        return time.perf_counter() - began


def measure(loop: Loop, dataset: Dataset, seconds: float = 20.0) -> Speed:
    """Measure the speed of a training loop for some seconds, half of them with a clock around every part of a step."""
    for _ in range(2):
        loop.step()
    if loop.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole: list[float] = []
    until = time.perf_counter() + seconds / 2
    while len(whole) < _LEAST or time.perf_counter() < until:
        whole.append(loop.step())
    clock = _Clock(loop.device)
    with clock.around("student", loop.task.student), clock.around("teacher", loop.task.teacher):
        until = time.perf_counter() + seconds / 2
        while len(clock.spent["data"]) < _LEAST or time.perf_counter() < until:
            loop.step(clock)
    parts = {name: statistics.median(spent) for name, spent in clock.spent.items()}
    parts["loss"] = max(0.0, parts.pop("forward") - parts["student"] - parts["teacher"])
    median = statistics.median(whole)
    evaluations = len(dataset.test) / len(dataset.train) / 3 / evaluation_interval(dataset)
    hours = 240 * len(loop.loader) * median * (1 + evaluations) / 3600
    ordered = {part: parts[part] for part in PARTS}
    return Speed(loop.batch / median, median, ordered, loop.flop, _peak(loop.device), hours)


def count(task: Distiller) -> float:
    """Floating-point operations of a training step per image; a multiply-add counts as two."""
    task = copy.deepcopy(task).train()
    labels = task.pair.labels[:2] if len(task.pair.labels) else torch.zeros(2, dtype=torch.long)
    images = torch.zeros(2 * task.copies, *task.image)
    with counter() as counted:
        task(images, labels, torch.arange(2))["loss"].backward()
    return counted.get_total_flops() / 2


def counter() -> FlopCounterMode:
    """A context that counts floating-point operations, including those of oneDNN's fused operators.

    PyTorch has no formula for those, and counts the weight gradient of a grouped convolution as if it were dense.
    """
    known: dict[Any, Any] = {torch.ops.aten.convolution_backward: _backward}
    for name in ("_convolution_pointwise", "_convolution_pointwise_", "_linear_pointwise"):
        if hasattr(torch.ops.mkldnn, name):
            known[getattr(torch.ops.mkldnn, name)] = _fused
    return FlopCounterMode(display=False, custom_mapping=known)


def _backward(grad: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
    transposed, mask = rest[4], rest[7]
    return 2 * math.prod(x if transposed else grad) * math.prod(weight[1:]) * sum(mask[:2])


def _fused(*shapes: Any, out_shape: Any, **_: Any) -> int:
    weight = [shape for shape in shapes if isinstance(shape, torch.Size) and len(shape) > 1][-1]
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


class _Clock:
    """Collects the seconds that the named parts of a step take."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        wait(self.device)
        self.spent[part].append(time.perf_counter() - began)

    @contextmanager
    def around(self, part: str, network: StagedNet) -> Iterator[None]:
        """A context in which every `network.activations(images)` is timed as `part`."""
        usual = network.activations

        def timed(images: Tensor) -> Activations:
            with self(part):
                return usual(images)

        network.activations = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            del network.activations


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
