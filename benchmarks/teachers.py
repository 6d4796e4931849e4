"""Cost of branches: a training step of the student-friendly teacher relative to the standard one's, for paper pairs.

    python benchmarks/teachers.py [--pairs vgg13:vgg8 …] [--steps 5] [--precision auto] [--cpu-time]

Both steps are taken in turn, in one process, prepared as in runs (`sftn.tasks.speedups`); the measured ratio is shown
beside that of multiply-adds. --cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared
with others, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import nn

from sftn.data.loader import Batch
from sftn.networks import build
from sftn.profiling.summary import describe
from sftn.runtime.device import make_fabric, settle_precision
from sftn.tasks.speedups import speed_up
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised

PAIRS = (
    *("wrn_40_2:wrn_16_2", "wrn_40_2:wrn_40_1", "wrn_40_2:shufflev2", "resnet32x4:resnet8x4", "resnet32x4:resnet8x2"),
    *("resnet32x4:shufflev1", "resnet32x4:shufflev2", "vgg13:vgg8", "resnet50:vgg8", "resnet18:mobilenetv2"),
    "resnet50:mobilenetv2",
)
IMAGE = (3, 32, 32)


def seconds(
    fabric: Fabric, task: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, now: Callable[[], float]
) -> float:
    """Take a step."""
    began = now()
    fabric.backward(task(*batch)["loss"])
    optimizer.step()
    optimizer.zero_grad()
    if batch.images.is_cuda:
        torch.cuda.synchronize()
    return now() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    now, precision = time.thread_time if options.cpu_time else time.perf_counter, settle_precision(options.precision)
    fabric = make_fabric("auto", precision)
    images = torch.randn(64, *IMAGE, device=fabric.device).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.randint(100, (64,), device=fabric.device), torch.arange(64, device=fabric.device))
    machine = platform.processor() or platform.machine()
    print(f"batch 64, {precision}; {machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| teacher | student | standard, ms | student-friendly, ms | measured ratio | multiply-adds | over it |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for pair in options.pairs:
        teacher, student = pair.split(":")
        pupil = partial(build, student, 100)
        steps = []
        for task in (Supervised(build(teacher, 100)), StudentBranches(build(teacher, 100), pupil, IMAGE)):
            speed_up(task, precision)
            task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            sgd = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
            steps.append(fabric.setup(task, sgd))
        times: list[list[float]] = [[], []]
        for turn in range(options.steps + 1):
            for one, (task, optimizer) in enumerate(steps):
                spent = seconds(fabric, task, optimizer, batch, now)
                if turn:
                    times[one].append(spent)
        measured = statistics.median(friendly / standard for standard, friendly in zip(*times))
        counted = describe(build(teacher, 100), IMAGE, pupil).training_cost
        own, both = (1000 * statistics.median(spent) for spent in times)
        row = f"| {teacher} | {student} | {own:.0f} | {both:.0f} | {measured:.2f} | {counted:.2f} |"
        print(f"{row} {measured / counted:.2f} |", flush=True)


if __name__ == "__main__":
    main()
