"""Cached teacher outputs: a step with part of them in the cache against a plain one, in turn. Prints Markdown.

    python benchmarks/asked.py [--pair resnet32x4:resnet8x4] [--method kd] [--seconds 100] [--teacher-cache 2]
                               [--in-memory] [--cpu-time]

In epoch e of a teacher's first student, counted from 0, a share 1 - (1 - 1/162)^e of the outputs is in the cache. A
second student with another seed finds what the first one left as well, 77 % of all after 240 epochs; one with the same
seed sees the same views and finds everything. The times of 240 epochs of 50,000 images are computed from that and the
measured steps, interpolated linearly, without evaluations.

The cache is a store on disk, in a temporary folder; --in-memory measures the one that is used where that is impossible.

--cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared with others, with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from sftn.methods import METHODS
from sftn.networks.staged import Activations, StagedNet
from sftn.profiling.roofline import machine
from sftn.profiling.throughput import Loop, noise
from sftn.runs.teacher_cache import FIELDS
from sftn.runtime.device import settle_precision, wait
from sftn.storage.row_store import RowStore
from sftn.tasks.recipes import objective
from sftn.training.output_cache import OnDisk, OutputCache, same_in_parts
from sftn.training.teacher_outputs import TeacherOutputs

IMAGES, VIEWS, EPOCHS, BATCH = 50_000, 162, 240, 64
SHARES = (0.0, 0.25, 0.48, 0.75, 1.0)
"""Cached shares to measure; 0.48 is the mean over 240 epochs."""
FEW = 1280
"""Training images used here; the time per step does not depend on their number."""
TURNS = 4000
"""Views of an image that there is room for: a new one for each step."""


class Given(TeacherOutputs):
    """A cache in which about a given share of each batch is found, whatever was stored before."""

    def __init__(self, loop: Loop, fields: list[str], folder: Path | None) -> None:
        self.share, self.turn, self.fields = 0.0, 0, fields
        self.teacher = loop.task.teacher
        with torch.no_grad(), loop.fabric.autocast():
            images = torch.zeros(BATCH, *loop.task.image).to(memory_format=torch.channels_last)
            activations = self.teacher.activations(images)
            self.widths = [getattr(activations, name).shape[1] for name in fields]
            self.like = self.answer(images)
            self.same = same_in_parts(self.answer, torch.randn_like(images))
        rows = None
        if folder is not None:
            size = self.like.element_size()
            stores = [
                RowStore(folder, {"field": name}, {}, FEW * TURNS, width * size, room=2**40)
                for name, width in zip(fields, self.widths)
            ]
            rows = OnDisk(stores, self.like)
        self.asked = OutputCache(lambda views: self.like[:1].expand(len(views), -1), FEW, TURNS, room=2**40, rows=rows)
        self.asked(torch.zeros(FEW, 1), torch.arange(FEW), torch.zeros(FEW, dtype=torch.long))
        self.asked.answer = self.answer

    def answer(self, views: Tensor) -> Tensor:
        """Compute what is cached, (B, C, H, W) -> (B, D)."""
        activations = self.teacher.activations(views)
        return torch.cat([getattr(activations, name) for name in self.fields], dim=1)

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """For `Distiller.teacher_outputs`."""
        self.turn += 1
        outcome = torch.where(torch.rand(len(index)) < self.share, 0, self.turn)
        parts = dict(zip(self.fields, self.asked(images, index, outcome).split(self.widths, dim=1)))
        none = images.new_empty(len(images), 0)
        logits, embedding = (parts[name].contiguous() if name in parts else none for name in FIELDS)
        return Activations(logits, embedding, (), ())


def between(share: float, steps: list[float]) -> float:
    """Time a step with a given share in the cache, in seconds."""
    for low, high, one, other in zip(SHARES, SHARES[1:], steps, steps[1:]):
        if share <= high:
            return one + (other - one) * (share - low) / (high - low)
    return steps[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="resnet32x4:resnet8x4")
    parser.add_argument("--method", default="kd")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--teacher-cache", type=float, default=2.0)
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    now = time.thread_time if options.cpu_time else time.perf_counter
    teacher, student = options.pair.split(":")
    precision = settle_precision(options.precision, "cpu")
    found = objective(options.method)
    asks = {name for term in found.terms for name in METHODS[term.method].teacher_outputs}
    asks |= {"logits"} if found.kd else set()
    if not asks or asks - set(FIELDS):
        raise SystemExit(f"{options.method} needs teacher outputs that cannot be cached")
    loop = Loop(teacher, student, options.method, noise(FEW, 100), precision=precision, device="cpu", batch=BATCH)
    loop.step()
    place = tempfile.TemporaryDirectory(prefix="sftn-outputs-")
    given = Given(loop, [name for name in FIELDS if name in asks], None if options.in_memory else Path(place.name))

    def step(share: float | None) -> float:
        loop.task.teacher_outputs = TeacherOutputs() if share is None else given
        given.share = 0.0 if share is None else share
        began = now()
        loop.step()
        wait(loop.device)
        return now() - began

    ways = (None, *SHARES)
    for share in (None, *(size / 8 for size in range(9))):  # oneDNN prepares every batch size once
        step(share)
    times: dict[float | None, list[float]] = {share: [] for share in ways}
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until or len(times[None]) < 3:
        for share in ways:
            times[share].append(step(share))
    median = {share: statistics.median(spent) for share, spent in times.items()}
    turns = len(times[None])
    print(f"{teacher} → {student}, {options.method}, batch {BATCH}, {precision}; {turns} turns; {machine()}", end="")
    print(", CPU time" * options.cpu_time)
    print(f"Outputs for parts of a batch are bitwise identical: {'yes' if given.same else 'NO'}\n")
    print("| of the teacher's outputs are cached | step, ms | images/s | over plain |\n|---|---:|---:|---:|")
    for share in ways:
        name = "plain: the teacher is run for every image" if share is None else f"{100 * share:.0f} %"
        gain = statistics.median(a / b for a, b in zip(times[None], times[share]))
        print(f"| {name} | {1000 * median[share]:.1f} | {BATCH / median[share]:.0f} | {gain:.2f} |")
    row = VIEWS * given.like.shape[1] * given.like.element_size()
    kept = min(1.0, options.teacher_cache * 2**30 / (row * IMAGES))
    measured = [median[share] for share in SHARES]
    steps = -(-IMAGES // BATCH)
    filled = 1 - (1 - 1 / VIEWS) ** EPOCHS

    def whole(there: float) -> float:
        """Seconds of all epochs if so large a share of the views is there from the start."""
        shares = (kept * (1 - (1 - there) * (1 - 1 / VIEWS) ** epoch) for epoch in range(EPOCHS))
        return sum(steps * between(share, measured) for share in shares)

    first, plain = whole(0.0), EPOCHS * steps * median[None]
    print(
        f"\n{EPOCHS} epochs of {IMAGES:,} images, {100 * kept:.0f} % of them in {options.teacher_cache:g} GiB", end=""
    )
    print(f" (all in {row * IMAGES / 2**30:.2f}):\n")
    print("| | hours | images/s | over plain | over the first |\n|---|---:|---:|---:|---:|")
    students = {
        "the teacher run for every image": plain,
        "first student": first,
        "second student, another seed": whole(filled),
        "second student, the same seed": whole(1.0),
    }
    for name, seconds in students.items():
        rate = EPOCHS * IMAGES / seconds
        print(f"| {name} | {seconds / 3600:.2f} | {rate:.0f} | {plain / seconds:.2f} | {first / seconds:.2f} |")
    place.cleanup()


if __name__ == "__main__":
    main()
