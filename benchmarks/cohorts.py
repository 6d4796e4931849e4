"""Students of one teacher trained together against one at a time, in one process, in turn. Prints Markdown.

    python benchmarks/cohorts.py [--pairs resnet32x4:resnet8x4 …] [--sizes 1 2 4 8] [--all] [--steps 6] [--cpu-time]

Cohorts consist of KD students, or with --all of a student with each method that can share its teacher's outputs; first
stages are left out on both sides. A turn takes a step of every student alone, then a step of all of them together.
Weights are compared at the end: on a CPU both ways give identical bits.

--cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared with others, with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch

from sftn.data.dataset import Dataset
from sftn.data.loader import Batches, training_batches
from sftn.networks.staged import StagedNet
from sftn.profiling.roofline import machine
from sftn.profiling.throughput import noise
from sftn.runs.build import new_network, plan
from sftn.runs.cohort import joins
from sftn.runs.runner import Shared
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.device import make_fabric, settle_precision
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.training.loop import stepwise

BATCH = 64


class Student:
    """One student's main phase, with its own random numbers."""

    def __init__(self, run: Run, data: Dataset, teacher: str, device: str, shared: Shared | None) -> None:
        self.fabric = make_fabric(device, run.precision)
        torch.manual_seed(0)
        self.network: StagedNet = new_network(run.network, data)
        outputs = None if shared is None else shared.cache.outputs(run, self.fabric.device)
        planned = plan(run, self.network, data, new_network(teacher, data), outputs)

        def make() -> Batches:
            return training_batches(
                data, batch=BATCH, copies=planned.copies, flip=planned.flip, device=self.fabric.device
            )

        loader = make() if shared is None else shared.loader(make, planned.copies, planned.flip)
        self.steps: Iterator[tuple[int, int]] = stepwise(planned.phases[-1], loader, self.fabric)
        self.random = torch.get_rng_state()

    def step(self) -> None:
        """Train on the next batch."""
        torch.set_rng_state(self.random)
        next(self.steps)
        self.random = torch.get_rng_state()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=["resnet32x4:resnet8x4", "wrn_40_2:wrn_16_2"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    precision = settle_precision(options.precision, options.device)
    data = noise(images=5000, tests=100)
    print(f"batch {BATCH}, {precision}; {machine()}" + ", CPU time" * options.cpu_time)
    print("| pair | students | one at a time, images/s | together, images/s | ratio | same bits |")
    print("|---|---|---:|---:|---:|---|", flush=True)
    for pair in options.pairs:
        teacher, student = pair.split(":")
        schedule = Schedule(batch=BATCH)
        named = Data("noise", data.identity)
        source = Run(teacher, named, 0, schedule, precision)
        runs = {
            name: Run(student, named, 0, schedule, precision, teacher=source, objective=objective(name))
            for name in OBJECTIVES
        }
        together = [run for run in runs.values() if joins(run)]
        groups = [together] if options.all else [[runs["kd"]] * size for size in options.sizes]
        for group in groups:
            what = f"{len(group)} with {', '.join(run.objective.name for run in group if run.objective)}"
            compare(pair, what if options.all else f"{len(group)} with KD", group, data, options)


def compare(pair: str, what: str, group: list[Run], data: Dataset, options: argparse.Namespace) -> None:
    now = time.thread_time if options.cpu_time else time.perf_counter
    teacher, shared = pair.split(":")[0], Shared(TeacherCache(group, data, 0.0))
    alone = [Student(run, data, teacher, options.device, None) for run in group]
    cohort = [Student(run, data, teacher, options.device, shared) for run in group]
    spent: list[list[float]] = [[], []]
    for turn in range(options.steps + 2):
        for times, students in zip(spent, (alone, cohort)):
            began = now()
            for student in students:
                student.step()
            if students[0].fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times.append(now() - began)
    images = BATCH * len(group)
    rates = [images / statistics.median(times) for times in spent]
    ratio = statistics.median(a / b for a, b in zip(*spent))
    same = all(
        torch.equal(a, b)
        for one, other in zip(alone, cohort)
        for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values())
    )
    said = f"{rates[0]:.0f} | {rates[1]:.0f} | {ratio:.2f} | {'yes' if same else 'no'} |"
    print(f"| {pair.replace(':', ' → ')} | {what} | {said}", flush=True)


if __name__ == "__main__":
    main()
