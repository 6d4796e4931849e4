"""The gain of `sftn.tasks.speedups`: a training step with and without it, in turn, in one process. Prints Markdown.

    python benchmarks/prepared.py [--pairs wrn_40_2:wrn_16_2 …] [--method kd] [--steps 20] [--cpu-time]

--cpu-time measures one thread's CPU time instead of wall-clock time, for a machine shared with others, with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import time

from sftn.profiling.roofline import machine
from sftn.profiling.throughput import Loop, noise

PAIRS = ("wrn_40_2:wrn_16_2", "resnet32x4:resnet8x4", "resnet32x4:shufflev2", "vgg13:vgg8", "resnet50:mobilenetv2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--method", default="kd")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    now, data = (time.thread_time if options.cpu_time else time.perf_counter), noise(images=5000, tests=100)
    print(f"{options.method}, batch 64, {options.precision}; {machine()}" + ", CPU time" * options.cpu_time)
    print("| pair | plain, ms | prepared, ms | ratio |\n|---|---:|---:|---:|")
    for pair in options.pairs:
        teacher, student = pair.split(":")
        loops = [
            Loop(teacher, student, options.method, data, precision=options.precision, prepared=prepared)
            for prepared in (False, True)
        ]
        times: list[list[float]] = [[], []]
        for turn in range(options.steps + 2):
            for one, loop in enumerate(loops):
                began = now()
                loop.step()
                if turn >= 2:
                    times[one].append(now() - began)
        plain, prepared = (1000 * statistics.median(spent) for spent in times)
        ratio = statistics.median(a / b for a, b in zip(*times))
        print(f"| {pair.replace(':', ' → ')} | {plain:.0f} | {prepared:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
