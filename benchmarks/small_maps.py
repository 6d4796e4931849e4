"""Convolutions on small maps as matrix products: every layer's passes, and whole KD steps, with and without. Markdown.

    python benchmarks/small_maps.py [--pairs vgg13:vgg8 …] [--precision bf16] [--steps 12] [--layers]

Both ways take turns in one process, one thread, and what counts is the computing time of that thread, so the ratios
hold on a machine that others use. --layers times the layers of the networks of the paper instead of steps.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sftn.networks.fast.product_choices import Choices, Layer, Table, times
from sftn.profiling.roofline import machine
from sftn.profiling.throughput import Loop, noise
from sftn.runtime.device import make_fabric

PAIRS = ("vgg13:vgg8", "wrn_40_2:wrn_16_2", "resnet32x4:shufflev2", "resnet50:mobilenetv2")
LAYERS = (  # channels, side, kernel, stride, channels out
    (64, 32, 3, 1, 64),
    (128, 16, 3, 1, 128),
    (64, 16, 3, 2, 128),
    (128, 16, 3, 2, 256),
    (64, 8, 3, 1, 64),
    (128, 8, 3, 1, 128),
    (128, 8, 3, 1, 256),
    (256, 8, 3, 1, 256),
    (256, 8, 3, 2, 512),
    (128, 4, 3, 1, 128),
    (256, 4, 3, 1, 256),
    (256, 4, 3, 1, 512),
    (512, 4, 3, 1, 512),
    (512, 2, 3, 1, 512),
    (58, 16, 1, 1, 58),
    (116, 8, 1, 1, 116),
    (232, 4, 1, 1, 232),
    (464, 4, 1, 1, 1024),
    (256, 8, 1, 2, 512),
    (1024, 4, 1, 1, 512),
    (2048, 4, 1, 1, 512),
    (480, 2, 1, 1, 80),
)


def layers(dtype: str, batch: int) -> None:
    """The milliseconds of each pass as a convolution, as a product and, where it fits, by Winograd's algorithm."""
    print("| layer | forward | gradient of the input | of the weight |\n|---|---:|---:|---:|")
    for channels, side, kernel, stride, out in LAYERS:
        found = times(Layer(dtype, batch, channels, side, side, kernel, stride, kernel // 2, out))
        cells = [" / ".join(f"{1000 * seconds:.2f}" for seconds in ways.values()) for ways in found.values()]
        name = f"{channels}→{out}, {kernel}×{kernel}, {side}×{side}" + f", stride {stride}" * (stride > 1)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def steps(pairs: list[str], method: str, precision: str, count: int) -> None:
    """A KD step with and without products; in float32, where nothing is prepared otherwise, with a folded teacher."""
    data = noise(images=5000, tests=100)
    print(
        "| pair | convolutions, ms | products, ms | ratio | from 10th to 90th percentile |\n|---|---:|---:|---:|---:|"
    )
    for pair in pairs:
        teacher, student = pair.split(":")
        loops = [
            Loop(teacher, student, method, data, precision=precision, choices=choices, fast_float32=fast)
            for choices, fast in ((Choices(Table("here", None, lambda _: "")), False), (Choices(), True))
        ]
        spent: tuple[list[float], list[float]] = ([], [])
        for turn in range(count + 2):
            for seconds, loop in zip(spent, loops):
                began = time.thread_time()
                loop.step()
                if turn >= 2:
                    seconds.append(time.thread_time() - began)
        ratios = sorted(usual / product for usual, product in zip(*spent))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        usual, product = (1000 * statistics.median(one) for one in spent)
        ratio = statistics.median(ratios)
        name = pair.replace(":", " → ")
        print(f"| {name} | {usual:.0f} | {product:.0f} | {ratio:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--method", default="kd")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_fabric("cpu", options.precision)  # keeps freed memory, as training does
    print(f"batch 64, {options.precision}, CPU time of one thread; {machine()}\n")
    if options.layers:
        layers({"bf16": "bfloat16"}.get(options.precision, options.precision), 64)
    else:
        steps(options.pairs, options.method, options.precision, options.steps)


if __name__ == "__main__":
    main()
