"""Where a KD step spends its time, and how fast it could be: parts, kinds of operations, two bounds. Prints Markdown.

    python benchmarks/where.py [--pairs wrn_40_2:wrn_16_2 …] [--method kd] [--precision auto] [--seconds 20]

The script measures the bounds itself: arithmetic is the step's multiply-adds at the rate of the largest matrix products
or convolutions; bandwidth is all bytes that its operations read and write at the rate of a large copy, as if nothing
stayed in a cache. `--plain` leaves out `sftn.tasks.speedups`.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sftn.profiling.roofline import machine, measure_ceiling
from sftn.profiling.throughput import PARTS, Loop, measure, noise
from sftn.runtime.device import settle_precision

PAIRS = ("wrn_40_2:wrn_16_2", "resnet32x4:resnet8x4", "resnet32x4:shufflev2", "vgg13:vgg8")
KINDS = {
    "convolution": ("convolution", "conv2d", "cudnn", "mkldnn"),
    "batch norm": ("batch_norm",),
    "ReLU, sum": ("relu", "threshold", "clamp", "aten::add"),
    "copy, cast, reorder": ("copy", "clone", "cat", "contiguous", "index", "transpose", "to_mkldnn"),
    "pool": ("pool", "mean"),
    "optimiser": ("sgd", "zero_"),
}


class Bytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, each tensor once; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        schema, name = func._schema, func._schema.name.partition("::")[2]
        given = dict(zip((one.name for one in schema.arguments), args)) | kwargs
        changed = [given.get(one.name) for one in schema.arguments if one.alias_info and one.alias_info.is_write]
        read, written = tensors(given), tensors((out, changed))
        if any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns):
            return out
        if name.startswith(("empty", "new_empty", "_unsafe_view")):
            return out
        if name.startswith(
            ("index", "gather", "take", "scatter")
        ):  # read no more of the larger tensor than of the smaller one
            fresh = [tensor for key, tensor in written.items() if key not in read]
            moved = fresh[0] if fresh else list(read.values())[-1]
            self.count += 2 * size(moved) + sum(size(t) for t in read.values() if not t.dtype.is_floating_point)
            return out
        if name.endswith("_like") or name.startswith("new_") or name in ("copy_", "fill_", "zero_"):
            read = tensors(args[1:]) if name == "copy_" else {}
        self.count += sum(map(size, read.values())) + sum(map(size, written.values()))
        return out


def tensors(tree: Any) -> dict[int, Tensor]:
    """Find the tensors in a nested structure, each once."""
    return {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def size(tensor: Tensor) -> int:
    """Size in bytes; expanded dimensions count once."""
    sides = (side for side, step in zip(tensor.shape, tensor.stride()) if step)
    return math.prod(sides) * tensor.element_size() if tensor.numel() else 0


def kinds(loop: Loop, steps: int = 5) -> dict[str, float]:
    """Seconds per step, by kind of operation."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (loop.device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            loop.step()
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")
        own = event.self_device_time_total if loop.device.type == "cuda" else event.self_cpu_time_total
        spent[kind] += own / 1e6 / steps
    return {kind: spent[kind] for kind in (*KINDS, "other")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--method", default="kd")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    precision, data = settle_precision(options.precision), noise()
    ceiling = measure_ceiling(precision)
    print(f"{options.method}, batch {options.batch}, {precision}; {machine()}")
    print(
        f"Matrix products {ceiling.product:.0f} GFLOP/s, convolutions {ceiling.convolution:.0f} GFLOP/s, copies "
        f"{ceiling.bandwidth:.0f} GB/s\n"
    )
    names = [*PARTS, "step", "arithmetic floor", "bandwidth floor", *KINDS, "other"]
    columns: dict[str, list[str]] = {}
    for pair in options.pairs:
        teacher, student = pair.split(":")
        how: dict[str, Any] = {"precision": precision, "batch": options.batch, "prepared": not options.plain}
        loop = Loop(teacher, student, options.method, data, **how)
        speed = measure(loop, data, options.seconds)
        with Bytes() as moved:
            loop.step()
        floors = {
            "step": speed.step,
            "arithmetic floor": speed.flop * options.batch / ceiling.arithmetic / 1e9,
            "bandwidth floor": moved.count / ceiling.bandwidth / 1e9,
        }
        values = speed.parts | floors | kinds(loop)
        columns[pair.replace(":", " → ")] = [f"{1000 * values[name]:.1f}" for name in names] + [
            f"{speed.images_per_second:.0f}",
            f"{speed.flop * options.batch / 1e9:.1f}",
            f"{moved.count / 1e9:.2f}",
            f"{100 * speed.share(ceiling):.0f} %",
        ]
    rows = [f"{name}, ms" for name in names] + ["images/s", "GFLOP a step", "GB a step", "of the arithmetic"]
    print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for row, values_of in zip(rows, zip(*columns.values())):
        print(f"| {row} | " + " | ".join(values_of) + " |")


if __name__ == "__main__":
    main()
