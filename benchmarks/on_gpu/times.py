"""What is timed: whole training loops a step at a time, as `fit` takes them, on random images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from on_gpu.place import logged
from sftn.data.dataset import Dataset
from sftn.data.loader import Batches, SharedBatches, training_batches
from sftn.experiments import paper
from sftn.experiments.grid import Conditions, grid
from sftn.networks import build
from sftn.profiling.estimate import estimate
from sftn.profiling.roofline import measure_ceiling
from sftn.profiling.throughput import count, noise
from sftn.runs.build import new_network, plan
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.device import make_fabric, wait
from sftn.spec.run import Data, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.speedups import speed_up
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from sftn.training.loop import LoopOptions, stepwise
from sftn.training.phase import Phase

BATCH = 64
WARM = 4
"""Steps before the clock starts; a captured one is recorded at the first of them."""


@dataclass(frozen=True)
class Bench:
    """How things are timed."""

    device: str
    tiny: bool
    seconds: float
    """Of each measurement."""

    @property
    def data(self) -> Dataset:
        """CIFAR-100's shape."""
        return noise(images=640, tests=64) if self.tiny else noise()

    def ceiling(self, precision: str) -> dict[str, float]:
        """GFLOP/s and GB/s, at best."""
        return asdict(measure_ceiling(precision, self.device, 256 if self.tiny else 8192))

    def distill(self, pair: str, method: str, precision: str, how: str) -> dict[str, float]:
        """The student's main phase."""
        data, (teacher, student) = self.data, pair.split(":")
        torch.manual_seed(0)
        networks = build(student, 100), build(teacher, 100)
        task = Distiller(*networks, objective(method), data.image, labels=data.train.labels)
        flop = count(task)
        speed_up(task, precision)
        phase = task.phases(Schedule(batch=BATCH, lr=1e-3))[-1]
        return self._phase(phase, data, precision, how, task.copies, task.flip) | {"flop": flop}

    def teacher(self, pair: str, precision: str, how: str, friendly: bool) -> dict[str, float]:
        """A teacher, with its student's branches or without."""
        data, (teacher, student) = self.data, pair.split(":")
        torch.manual_seed(0)
        network = build(teacher, 100)
        task: nn.Module = Supervised(network)
        if friendly:
            task = StudentBranches(network, partial(build, student, 100), data.image)
        speed_up(task, precision)
        return self._phase(Phase("train", task, (task,), Schedule(batch=BATCH, lr=1e-3)), data, precision, how)

    def _phase(
        self, phase: Phase, data: Dataset, precision: str, how: str, copies: int = 1, flip: bool = True
    ) -> dict[str, float]:
        fabric = make_fabric(self.device, precision)
        loader = training_batches(data, batch=BATCH, flip=flip, copies=copies, device=fabric.device)
        steps = stepwise(phase, loader, fabric, LoopOptions(step=how))
        return self._timed(partial(next, steps), fabric.device)

    def _timed(self, step: Callable[[], Any], device: torch.device) -> dict[str, float]:
        """Seconds of a step, without waiting between steps; peak memory."""
        if device.type == "cuda":  # before a graph is recorded: what it keeps is not counted afterwards
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with logged() as said:
            for _ in range(WARM):
                step()
        assert not said, said
        wait(device)
        first = time.perf_counter() - began
        began, pilot = time.perf_counter(), 1 if self.tiny else 5
        for _ in range(pilot):
            step()
        wait(device)
        steps = max(pilot, int(self.seconds * pilot / (time.perf_counter() - began)))
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait(device)
        spent = (time.perf_counter() - began) / steps
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        return {"step": spent, "images_per_second": BATCH / spent, "memory": memory, "first": first}

    def naive(self, pair: str) -> dict[str, float]:
        """A loop as public benchmarks have it: float32, NCHW, batches from the host, numbers read at every step.

        The loader is left out in its favour: batches lie in the host's memory, augmented.
        """
        device, (teacher, student) = torch.device(self.device), pair.split(":")
        torch.manual_seed(0)
        ours, theirs = build(student, 100).to(device).train(), build(teacher, 100).to(device).eval()
        sgd = torch.optim.SGD(ours.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        batches = [(torch.randn(BATCH, 3, 32, 32), torch.randint(100, (BATCH,))) for _ in range(8)]
        seen: list[float] = []

        def step() -> None:
            images, labels = (part.to(device) for part in batches[len(seen) % 8])
            logits = ours(images)
            with torch.no_grad():
                target = theirs(images)
            soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(target / 4, 1), reduction="batchmean") * 16
            loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * soft
            correct = (logits.topk(5, 1).indices == labels[:, None]).any(1)
            seen.append(loss.item() + correct.float().mean().item())
            sgd.zero_grad()
            loss.backward()
            sgd.step()

        return self._timed(step, device)

    def cohort(self, pair: str, precision: str, how: str, size: int) -> dict[str, float]:
        """Students of one teacher by KD, together over one at a time; images/s of all of them."""
        data, (teacher, student) = self.data, pair.split(":")
        schedule, named = Schedule(batch=BATCH, lr=1e-3), Data("noise", "0" * 16)
        source = Run(teacher, named, 0, schedule, precision)
        run = Run(student, named, 0, schedule, precision, teacher=source, objective=objective("kd"))

        def students(together: bool) -> list[Iterator[tuple[int, int]]]:
            found = []
            cache = TeacherCache([run] * (size if together else 1), data, 0.0)
            fabric = make_fabric(self.device, precision)
            loader: Batches = training_batches(data, batch=BATCH, device=self.device)
            shared = SharedBatches(loader)
            for _ in range(size):
                outputs = cache.outputs(run, fabric.device)
                networks = new_network(student, data), new_network(teacher, data)
                planned = plan(run, networks[0], data, networks[1], outputs)
                batches = shared if together else loader
                found.append(stepwise(planned.phases[-1], batches, fabric, LoopOptions(step=how)))
            return found

        def turn(students: Sequence[Iterator[tuple[int, int]]]) -> None:
            for each in students:
                next(each)

        device = make_fabric(self.device, precision).device
        alone = self._timed(partial(turn, students(together=False)), device)
        together = self._timed(partial(turn, students(together=True)), device)
        rates = {name: size * found["images_per_second"] for name, found in (("alone", alone), ("together", together))}
        return rates | {"ratio": rates["together"] / rates["alone"], "memory": together["memory"]}

    def tables(self, names: Sequence[str], precision: str, how: str, budget: float) -> dict[str, Any]:
        """Hours of all runs of some tables, one after the other."""
        conditions, data = Conditions(Data("cifar100", "0" * 16), Schedule(), precision), self.data
        runs = {
            item.run.id: item.run for table in map(paper.table, names) for item in grid(table, conditions, table.seeds)
        }

        def epoch(run: Run, dataset: Dataset, device: str) -> float:
            teacher = None if run.teacher is None else new_network(run.teacher.network, dataset)
            planned = plan(run, new_network(run.network, dataset), dataset, teacher)
            quick = Bench(self.device, self.tiny, 0.1)
            spent = [
                quick._phase(phase, dataset, precision, how, planned.copies, planned.flip)["step"]
                * phase.schedule.epochs
                for phase in planned.phases
            ]
            return sum(spent) * (len(dataset.train) // BATCH + 1) / run.schedule.epochs

        found = estimate(
            list(runs.values()), data, Path("nowhere"), device=self.device, budget=budget, time_steps=epoch
        )
        assert found is not None, "there was no time"
        return {"runs": len(runs), "hours": found.hours, "how": found.how}
