"""Decoding and streaming: images per second of one core, of the loader, of training, and of both; and peak memory.

    python benchmarks/decoding.py PATH [--seconds 5] [--workers 2] [--network resnet8] [--batch 64]

PATH is a folder of 64×64 JPEGs as `folder:PATH` takes it, such as Tiny-ImageNet unpacked with one folder per class. The
larger images are made from them: enlarged to 500×375 and stored as JPEG of quality 90, so they are smoother than
photographs.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sftn.data.batch import Batch
from sftn.data.dataset import Dataset
from sftn.data.decoding import centre, crop
from sftn.data.file_split import Files
from sftn.data.load import load
from sftn.data.loader import Batches, training_batches
from sftn.networks import build
from sftn.runtime.device import make_fabric
from sftn.tasks.supervised import Supervised


def enlarged(path: Path) -> bytes:
    file = io.BytesIO()
    Image.open(path).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def rate(work: Iterable[int], seconds: float) -> float:
    """Images per second, from the sizes of consecutive batches; the first batch is not counted."""
    done, began = 0, 0.0
    for count in work:
        if not began:
            began = time.perf_counter()
            continue
        done += count
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def one_core(files: Files, seconds: float) -> None:
    rows = files.rows[torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:200]]
    paths = [files.reader.open(int(row))[0] for row in rows]
    kinds = {"64×64": [path.read_bytes() for path in paths], "500×375": [enlarged(path) for path in paths]}
    uniform = np.random.default_rng(0).random
    print("| JPEGs | becomes | random part, images/s | without draft mode | centre (evaluation) |")
    print("|---|---:|---:|---:|---:|")
    for name, stored in kinds.items():
        for size in (64, 224) if name == "500×375" else (64,):
            made: list[Callable[[bytes], Any]] = [
                lambda raw, s=size: crop(Path("x"), s, uniform, io.BytesIO(raw)),  # type: ignore[misc]
                lambda raw, s=size: crop(Path("x"), s, uniform, io.BytesIO(raw), draft=False),  # type: ignore[misc]
                lambda raw, s=size: centre(Path("x"), s, io.BytesIO(raw), resize=s * 256 // 224),  # type: ignore[misc]
            ]
            speeds = []
            for one in made:
                speeds.append(rate((one(raw) is not None for _ in range(10**6) for raw in stored), seconds))
            print(f"| {name} | {size}×{size} | " + " | ".join(f"{speed:,.0f}" for speed in speeds) + " |", flush=True)


class Training:
    """A step of a tiny network on batches."""

    def __init__(self, network: str, dataset: Dataset) -> None:
        self.fabric = make_fabric()
        task = Supervised(build(network, len(dataset.classes), 3, dataset.image[1:]))
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task, self.sgd = self.fabric.setup(task, torch.optim.SGD(task.parameters(), lr=0.01))

    def step(self, batch: Batch) -> int:
        """Train on a batch; return its number of images."""
        self.fabric.backward(self.task(*batch)["loss"])
        self.sgd.step()
        self.sgd.zero_grad()
        return len(batch.labels)


def batches(loader: Batches) -> Iterable[Batch]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def peak(pid: int | str = "self") -> float:
    """The most memory that a process ever held, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    streamed = load(f"folder:{options.path}", size=64, stream=True, workers=options.workers)
    assert isinstance(streamed.train, Files)
    one_core(streamed.train, options.seconds)

    start = peak()
    loader = training_batches(streamed, batch=options.batch, device="cpu")
    alone = rate((len(batch.labels) for batch in batches(loader)), options.seconds)
    training = Training(options.network, streamed)
    both = rate((training.step(batch) for batch in batches(loader)), options.seconds)
    children = [peak(child.pid) for child in multiprocessing.active_children() if child.pid is not None]
    after = peak()
    inside = load(f"folder:{options.path}", size=64, limit=min(len(streamed.train), 2000), stream=False)
    fed = rate(
        (training.step(batch) for batch in batches(training_batches(inside, batch=options.batch, device="cpu"))),
        options.seconds,
    )
    print(
        f"\n{len(streamed.train):,} JPEGs of 64×64, {options.workers} workers, {options.network}, "
        f"batch {options.batch}\n"
    )
    print("| | images/s |\n|---|---:|")
    print(f"| loader alone | {alone:,.0f} |\n| training alone, images in memory | {fed:,.0f} |\n| both | {both:,.0f} |")
    listed = ", ".join(f"{size:,.0f}" for size in children)
    print(
        f"\nPeak memory: {start:,.0f} MiB before, {after:,.0f} MiB after; workers (shared pages counted) {listed} MiB."
    )


if __name__ == "__main__":
    main()
