"""Growth of a step's time and memory with its work, as curves with exponents. Prints Markdown.

    python benchmarks/scaling.py [--curves batch images …] [--pair wrn_40_2:wrn_16_2] [--precision auto] [--device auto]
                                 [--steps 7] [--cpu-time] [--figure FILE]

- batch: a KD step with 16 to 256 images; classes: with 10 to 1,000 classes
- branches: a step of a student-friendly teacher with one to three branches; students: friendly to one to three students
- images: CRD's loss alone with 16,384 negatives, 1,000 to 200,000 training images
- cohort: a step of each of 1 to 8 KD students that share a teacher

The sizes of a curve take steps in turn; times are medians. Memory is torch's peak for a size, from building it to its
second step, without the images of the data set. Work is counted from the operations of the same step: multiply-adds,
and the bytes that they read and write. An exponent is the slope of the least-squares line through the logarithms: 1 is
proportional, 0 is constant. The requirement: time grows no faster than the faster growing of multiply-adds and bytes,
and memory no faster than the size, both within 0.05.

--cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared with others, with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cohorts import Student
from torch.profiler import ProfilerActivity, profile
from where import Bytes

from sftn.data.batch import Batch
from sftn.methods.crd import CRD
from sftn.networks import build
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shapes
from sftn.profiling.roofline import machine
from sftn.profiling.throughput import Loop, counter, noise
from sftn.runs.runner import Shared
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.device import make_fabric, settle_precision, wait
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.recipes import objective
from sftn.tasks.speedups import speed_up
from sftn.tasks.student_branches import StudentBranches

SLACK = 0.05
IMAGE = (3, 32, 32)
FRIENDLY = ("vgg13", "vgg8")
"""A pair with three branches."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Curve:
    """Sizes, and a function that makes a step for each."""

    what: str
    sizes: tuple[int, ...]
    make: Callable[[argparse.Namespace, int], Step]


def loop(options: argparse.Namespace, batch: int = 64, classes: int = 100) -> Step:
    """Make a KD step."""
    teacher, student = options.pair.split(":")
    data = noise(images=4 * max(batch, classes), tests=100, classes=classes)
    how: dict[str, Any] = {"precision": options.precision, "device": options.device, "batch": batch}
    return Loop(teacher, student, "kd", data, **how).step


def friendly(options: argparse.Namespace, branches: int = 3, students: int = 1) -> Step:
    """Make a step of a student-friendly teacher with its last branches, so that the costliest comes last."""
    fabric = make_fabric(options.device, options.precision)
    teacher, student = FRIENDLY
    pupils = [partial(build, student, 100)] * students
    task = StudentBranches(build(teacher, 100), pupils, IMAGE, branches=range(4 - branches, 4))
    speed_up(task, options.precision)
    task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    trained, optimizer = fabric.setup(task, sgd)
    images = torch.randn(64, *IMAGE, device=fabric.device).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.arange(64, device=fabric.device), torch.arange(64, device=fabric.device))

    def step() -> None:
        fabric.backward(trained(*batch)["loss"])
        optimizer.step()
        optimizer.zero_grad()
        wait(fabric.device)

    return step


def crd(options: argparse.Namespace, images: int) -> Step:
    """Make a step of CRD's loss and its gradient, with embeddings of 128 numbers."""
    fabric = make_fabric(options.device, options.precision)
    labels = torch.arange(images) % 100
    shapes = Shapes(100, 128, (), ())
    method = CRD(Pair(shapes, shapes, (), labels, 100, ())).to(fabric.device).train()
    ours, theirs = torch.randn(2, 64, 128, device=fabric.device)
    ours.requires_grad_()
    nothing = torch.empty(0, device=fabric.device)

    def step() -> None:
        index = torch.randperm(images)[:64].to(fabric.device)
        batch = Batch(nothing, labels.to(fabric.device)[index], index)
        seen = (Activations(nothing, embedding, (), ()) for embedding in (ours, theirs))
        method(*seen, batch).backward()
        wait(fabric.device)

    return step


def cohort(options: argparse.Namespace, students: int) -> Step:
    """Make a step of each student of a cohort."""
    teacher, student = options.pair.split(":")
    data = noise(images=1000, tests=100)
    named, schedule = Data("noise", data.identity), Schedule(batch=64)
    source = Run(teacher, named, 0, schedule, options.precision)
    run = Run(student, named, 0, schedule, options.precision, teacher=source, objective=objective("kd"))
    shared = Shared(TeacherCache([run] * students, data, 0.0))
    members = [Student(run, data, teacher, options.device, shared) for _ in range(students)]

    def step() -> None:
        for member in members:
            member.step()
        wait(members[0].fabric.device)

    return step


CURVES = {
    "batch": Curve("images per step", (16, 32, 64, 128, 256), lambda options, size: loop(options, batch=size)),
    "classes": Curve("classes", (10, 30, 100, 300, 1000), lambda options, size: loop(options, classes=size)),
    "branches": Curve("branches", (1, 2, 3), lambda options, size: friendly(options, branches=size)),
    "students": Curve("students", (1, 2, 3), lambda options, size: friendly(options, students=size)),
    "images": Curve("training images of CRD", (1000, 5000, 20_000, 50_000, 100_000, 200_000), crd),
    "cohort": Curve("students of a cohort", (1, 2, 4, 8), cohort),
}


@dataclass
class Cost:
    """The cost of a step at one size."""

    memory: float
    multiply_adds: float
    moved: float
    seconds: float = 0.0


def grow(curve: Curve, options: argparse.Namespace) -> list[Cost]:
    """Build all sizes, count their work, and time their steps in turn."""
    steps, costs = [], []
    for size in curve.sizes:
        with Held(options.device) as peak:
            step = curve.make(options, size)
            step()
            step()
        with counter() as counted:
            step()
        with Bytes() as moved:
            step()
        steps.append(step)
        costs.append(Cost(peak[0], counted.get_total_flops() / 2, moved.count))
    now = time.thread_time if options.cpu_time else time.perf_counter
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(options.steps):
        for step, spent in zip(steps, times):
            began = now()
            step()
            spent.append(now() - began)
    for cost, spent in zip(costs, times):
        cost.seconds = statistics.median(spent)
    return costs


class Held:
    """Measure torch's peak memory within a context, in bytes; the list is filled at its end."""

    def __init__(self, device: str) -> None:
        self.cuda = make_fabric(device).device.type == "cuda"
        self.profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> list[float]:
        self.peak: list[float] = []
        gc.collect()  # memory freed later would be subtracted from the peak
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.profile.__enter__()
        return self.peak

    def __exit__(self, *error: Any) -> None:
        if self.cuda:
            self.peak.append(torch.cuda.max_memory_allocated() - self.before)
            return
        self.profile.__exit__(*error)
        results: Any = self.profile.profiler
        events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
        now = most = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        self.peak.append(most)


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Slope of the least-squares line through log(cost) over log(size)."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    return statistics.linear_regression(x, y).slope


def show(curve: Curve, costs: list[Cost]) -> None:
    """Print a curve, its exponents, and whether cost grows no faster than work."""
    print(f"\n| {curve.what} | ms | MiB | G multiply-adds | GB moved |\n|---:|---:|---:|---:|---:|")
    for size, cost in zip(curve.sizes, costs):
        work = f"{cost.multiply_adds / 1e9:.2f} | {cost.moved / 1e9:.2f}"
        print(f"| {size:,} | {1000 * cost.seconds:.1f} | {cost.memory / 2**20:.0f} | {work} |")
    columns = [[cost.seconds, cost.memory, cost.multiply_adds, cost.moved] for cost in costs]
    found = [exponent(curve.sizes, list(column)) for column in zip(*columns)]
    print("| exponent | " + " | ".join(f"{value:.2f}" for value in found) + " |\n")
    seconds, memory, *work_exponents = found
    for cost_name, value, limit_name, limit in (
        ("Time", seconds, "the work", max(work_exponents)),
        ("Memory", memory, "the size", 1.0),
    ):
        said = "no faster" if value <= limit + SLACK else "FASTER"
        print(f"{cost_name} grows {said} than {limit_name}: exponent {value:.2f} beside {limit:.2f}.  ")


def draw(found: dict[str, list[Cost]], path: Path) -> None:
    """Draw all curves relative to their smallest size, with the work dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(3.2 * len(found), 3), squeeze=False, layout="constrained")
    for axis, (name, costs) in zip(axes[0], found.items()):
        lines = {"time": "seconds", "memory": "memory", "multiply-adds": "multiply_adds", "bytes": "moved"}
        for label, field in lines.items():
            values = [getattr(cost, field) / getattr(costs[0], field) for cost in costs]
            style = "o-" if label in ("time", "memory") else "--"
            axis.loglog(CURVES[name].sizes, values, style, label=label)
        axis.set_xlabel(CURVES[name].what)
    axes[0][0].legend()
    axes[0][0].set_ylabel("relative to the smallest")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--pair", default="wrn_40_2:wrn_16_2")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.precision = settle_precision(options.precision, options.device)
    print(f"{options.pair.replace(':', ' → ')}, batch 64, {options.precision}; {machine()}", flush=True)
    found = {}
    for name in options.curves:
        found[name] = grow(CURVES[name], options)
        show(CURVES[name], found[name])
    if options.figure is not None:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
