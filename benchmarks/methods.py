"""Each method's training step relative to KD's on the same pair, in turn, in one process; and CRD's extra memory.

    python benchmarks/methods.py [--teacher wrn_40_2] [--student wrn_16_2] [--methods crd …] [--steps 10]
                                 [--precision float32] [--cpu-time]

The project's limits: AT, SP, RKD, PKT, FitNet, FT, AB at most 1.1 times KD; VID and OH 1.3; CRD with 16,384 negatives
of 50,000 images 1.25 on a CPU; SSKD 4.3 (it processes four times the images); DKD, DIST, NKD, kd@std, CTKD 1.03;
CAT-KD, SimKD 1.15; ReviewKD 1.5; MLKD 2.1 (two views). USKD and WKD have none. For AB, the main phase's step counts. A
method is any text of `--methods`, such as kd@std or "ft(factors=whole):500".
--cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared with others, with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from sftn.data.dataset import Split
from sftn.data.loader import Loader
from sftn.networks import build
from sftn.runtime.device import make_fabric
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.tasks.speedups import speed_up

LIMITS = {
    **dict.fromkeys(("at", "sp", "rkd", "pkt", "fitnet", "ft", "ab"), 1.1),
    **{"vid": 1.3, "oh": 1.3, "crd": 1.25, "sskd": 4.3},
    **dict.fromkeys(("dkd", "dist", "nkd", "kd@std", "ctkd"), 1.03),
    **{"catkd": 1.15, "simkd": 1.15, "reviewkd": 1.5, "mlkd": 2.1},
}
"""At most so many times a step of KD."""
IMAGES = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="wrn_40_2")
    parser.add_argument("--student", default="wrn_16_2")
    parser.add_argument("--methods", nargs="+", default=[*OBJECTIVES, "kd@std"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    now = time.thread_time if options.cpu_time else time.perf_counter
    fabric = make_fabric("auto", options.precision)
    labels = torch.arange(IMAGES) % 100
    data = Split(torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8), labels)
    normalisation = (torch.full((3,), 128.0), torch.full((3,), 64.0))

    steps, batches, sizes = {}, {}, {}
    for name in ["kd", *(name for name in options.methods if name != "kd")]:
        teacher, student = build(options.teacher, 100), build(options.student, 100)
        task = Distiller(student, teacher, objective(name), (3, 32, 32), labels=labels)
        speed_up(task, options.precision)
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = task.phases(Schedule())[-1].trains
        weights = [parameter for module in trained for parameter in module.parameters()]
        sgd = torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
        steps[name] = fabric.setup(task.train(), sgd)
        loader = Loader(
            data, batch=64, normalisation=normalisation, padding=4, copies=task.copies, device=fabric.device
        )
        batches[name] = loader.epoch(0)
        sizes[name] = sum(buffer.numel() * buffer.element_size() for buffer in task.methods.buffers())

    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.steps + 2):
        for name, (task, optimizer) in steps.items():
            batch = next(batches[name])
            began = now()
            fabric.backward(task(*batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times[name].append(now() - began)

    machine = platform.processor() or platform.machine()
    print(
        f"{options.teacher} → {options.student}, batch 64, {options.precision}, {IMAGES:,} images; {machine}, ", end=""
    )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, median of {options.steps}")
    print("| method | step, ms | over KD | at most | buffers, MB |\n|---|---:|---:|---:|---:|")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["kd"]))
        time_in_ms = 1000 * statistics.median(seconds)
        print(f"| {name} | {time_in_ms:.0f} | {ratio:.3f} | {LIMITS.get(name, '')} | {sizes[name] / 1e6:.1f} |")


if __name__ == "__main__":
    main()
