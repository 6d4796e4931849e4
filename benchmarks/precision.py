"""bf16 and channels-last against float32 and NCHW: the same KD step, in turn, in one process.

    python benchmarks/precision.py [--pairs resnet32x4:resnet8x4 …] [--steps 10]

The project's requirement on a CPU with AVX512-BF16: at least 1.8 times as fast.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from sftn.data.loader import Batch
from sftn.networks import build
from sftn.runtime.device import HALVES, make_fabric
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective

PAIRS = ("wrn_40_2:wrn_16_2", "resnet32x4:resnet8x4", "vgg13:vgg8", "resnet20:resnet8")


class Step:
    """A KD training step of a pair, in one precision and memory format."""

    def __init__(self, teacher: str, student: str, precision: str, channels_last: bool) -> None:
        self.fabric = make_fabric("auto", precision)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        task = Distiller(build(student, 100), build(teacher, 100), objective("kd"), (3, 32, 32)).train()
        if precision in HALVES:
            task.keep_teacher_in(HALVES[precision])
        task.to(memory_format=self.format)  # type: ignore[call-overload]
        sgd = torch.optim.SGD(task.student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        self.task, self.optimizer = self.fabric.setup(task, sgd)

    def time(self, batch: Batch) -> float:
        """Take a step and return its seconds."""
        began = time.perf_counter()
        loss = self.task(batch.images.to(memory_format=self.format), batch.labels, batch.index)["loss"]
        self.fabric.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    device = make_fabric().device
    batch = Batch(
        torch.randn(options.batch, 3, 32, 32, device=device),
        torch.randint(100, (options.batch,), device=device),
        torch.arange(options.batch, device=device),
    )
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| pair | float32 NCHW, images/s | bf16 channels-last, images/s | ratio |\n|---|---:|---:|---:|")
    for pair in options.pairs:
        teacher, student = pair.split(":")
        steps = [Step(teacher, student, "float32", False), Step(teacher, student, "bf16", True)]
        times: list[list[float]] = [[], []]
        for turn in range(options.steps + 3):
            for one, step in enumerate(steps):
                seconds = step.time(batch)
                if turn >= 3:
                    times[one].append(seconds)
        slow, fast = (options.batch / statistics.median(seconds) for seconds in times)
        ratio = statistics.median(a / b for a, b in zip(*times))
        print(f"| {teacher} → {student} | {slow:.0f} | {fast:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
