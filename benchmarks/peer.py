"""The whole training loops of RepDistiller and ours, in turn, on one machine, on real CIFAR-100. Prints Markdown.

    git clone https://github.com/HobbitLong/RepDistiller PEER
    pip install torchvision tensorboard_logger
    python benchmarks/peer.py --peer PEER --data-dir DIR [--pairs wrn_40_2:wrn_16_2 …] [--methods kd] [--seconds 60]

DIR contains `cifar-100-python`, the official files. Each loop runs in its own process for some seconds after a few
warm-up steps, peer, ours, peer, ours …; teachers have random weights, which do not affect the time. Nothing of the peer
is copied: its `train_student.main` is called unchanged except for these repairs, without which it does not run with
today's torchvision or without a GPU: CIFAR100's old names `train_data` and `train_labels`; `AliasMethod.cuda` left out;
the files' MD5 not checked, so that a rewritten CIFAR-100 works. Without tensorboard_logger its lines go to a file. Its
evaluations are left out, and so are ours: what is timed is training, from loader to log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAIRS = ("wrn_40_2:wrn_16_2", "resnet32x4:resnet8x4", "vgg13:vgg8", "resnet32x4:shufflev2")
THEIR_NAMES = {"shufflev1": "ShuffleV1", "shufflev2": "ShuffleV2", "mobilenetv2": "MobileNetV2", "resnet50": "ResNet50"}
THEIR_OPTIONS = {
    "kd": ["--distill", "kd", "-r", "0.1", "-a", "0.9", "-b", "0"],
    "crd": ["--distill", "crd", "-a", "0", "-b", "0.8"],
    "at": ["--distill", "attention", "-a", "0", "-b", "1000"],
    "sp": ["--distill", "similarity", "-a", "0", "-b", "3000"],
    "rkd": ["--distill", "rkd", "-a", "0", "-b", "1"],
    "pkt": ["--distill", "pkt", "-a", "0", "-b", "30000"],
    "vid": ["--distill", "vid", "-a", "0", "-b", "1"],
}
WARM = 3
"""Warm-up steps, which are not timed."""


class Enough(BaseException):
    """Raised when the time is over; not an Exception, so that no error handler catches it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--methods", nargs="+", default=["kd"], choices=THEIR_OPTIONS)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=8, help="of the peer's loader; 8 is its default")
    parser.add_argument("--child", choices=["peer", *("float32", "bf16", "float16")], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peer, options.data_dir = options.peer.resolve(), options.data_dir.resolve()
    if options.child:
        run = theirs if options.child == "peer" else ours
        teacher, student = options.pairs[0].split(":")
        print("RESULT " + json.dumps(run(options, teacher, student, options.methods[0])), flush=True)
        return
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run everything in turn and print the results."""
    import torch

    from sftn.networks import build
    from sftn.profiling.roofline import machine, measure_ceiling
    from sftn.profiling.throughput import count
    from sftn.tasks.distillation import Distiller
    from sftn.tasks.recipes import objective

    ceilings = {precision: measure_ceiling(precision).arithmetic for precision in options.precisions}
    print(f"batch {options.batch}, {options.seconds:g} s each, {options.rounds} rounds; {machine()}")
    best = ", ".join(f"{precision} {ceiling:.0f}" for precision, ceiling in ceilings.items())
    print(f"Ceilings (large matrix products or convolutions), GFLOP/s: {best}\n")
    print("| pair | method | loop | images/s | ratio | of the ceiling | peak, main process | peak, with workers |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for pair in options.pairs:
        for method in options.methods:
            found: dict[str, list[dict[str, float]]] = {}
            for _ in range(options.rounds):
                for child in ("peer", *options.precisions):
                    found.setdefault(child, []).append(spawn(options, child, pair, method))
            teacher, student = (build(name, 100) for name in pair.split(":"))
            labels = torch.arange(50_000) % 100
            goal = objective(method, alone=True)
            flop = count(Distiller(student, teacher, goal, (3, 32, 32), labels=labels))
            peer = [each["speed"] for each in found["peer"]]
            for child, each in found.items():
                speeds = [one["speed"] for one in each]
                ratio = statistics.median(ours / theirs for ours, theirs in zip(speeds, peer))
                ceiling = ceilings.get(child, ceilings.get("float32", 0))
                share = f"{100 * statistics.median(speeds) * flop / 1e9 / ceiling:.0f} %" if ceiling else ""
                peaks = [max(one[key] for one in each) / 2**20 for key in ("main", "all")]
                name = "RepDistiller" if child == "peer" else f"ours, {child}"
                speed = f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})"
                print(f"| {pair.replace(':', ' → ')} | {method} | {name} | {speed} | {ratio:.2f} | {share} | ", end="")
                print(f"{peaks[0]:.0f} MiB | {peaks[1]:.0f} MiB |", flush=True)


def spawn(options: argparse.Namespace, child: str, pair: str, method: str) -> dict[str, float]:
    """Run one loop in its own process; return images per second, and the peak memory of it and its workers."""
    command = [sys.executable, __file__, "--child", child, "--peer", options.peer, "--data-dir", options.data_dir]
    command += ["--pairs", pair, "--methods", method, "--seconds", str(options.seconds)]
    command += ["--batch", str(options.batch), "--workers", str(options.workers)]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        peaks = {"main": 0, "all": 0}
        while process.poll() is None:
            for key, memory in zip(peaks, memories(process.pid)):
                peaks[key] = max(peaks[key], memory)
            time.sleep(0.5)
        log.seek(0)
        said = log.read()
    result = next((line for line in said.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        raise SystemExit(f"{child} of {pair} with {method} ended without a result:\n{said[-2000:]}")
    return {"speed": json.loads(result.removeprefix("RESULT "))} | peaks


def memories(pid: int) -> tuple[int, int]:
    """Memory in bytes of a process, and of it with all descendants; shared memory counts once (Linux)."""
    own: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    for member in family:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        own[member] = next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return own.get(pid, 0), sum(own.values())


class Limited:
    """A loader that ends when the time is over, and counts the images after the first few batches."""

    def __init__(self, loader: Any, seconds: float) -> None:
        self.loader, self.seconds = loader, seconds
        self.speed = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        began, images = 0.0, 0
        for number, batch in enumerate(self.loader):
            if number == WARM:
                began, images = time.perf_counter(), 0
            if number > WARM and time.perf_counter() - began > self.seconds:
                break
            yield batch
            images += len(batch[0])
        self.speed = images / (time.perf_counter() - began)


def theirs(options: argparse.Namespace, teacher: str, student: str, method: str) -> float:
    """Run RepDistiller's own training loop in the current folder."""
    from sftn.networks.foreign.torchvision_import import imported

    sys.path.insert(0, str(options.peer))
    datasets = imported("torchvision.datasets")
    datasets.CIFAR100.train_list, datasets.CIFAR100.test_list = [["train", None]], [["test", None]]
    datasets.CIFAR100.meta = datasets.CIFAR100.meta | {"md5": None}
    datasets.CIFAR100.train_data = property(lambda self: self.data)
    datasets.CIFAR100.train_labels = property(lambda self: self.targets)
    try:
        __import__("tensorboard_logger")
    except ImportError:
        sys.modules["tensorboard_logger"] = _logger()
    Path("data").mkdir()
    (Path("data") / "cifar-100-python").symlink_to(options.data_dir / "cifar-100-python")

    import torch

    memory: Any = __import__("crd.memory", fromlist=["AliasMethod"])
    if not torch.cuda.is_available():
        memory.AliasMethod.cuda = lambda self: None
    models: Any = __import__("models")
    teacher, student = THEIR_NAMES.get(teacher, teacher), THEIR_NAMES.get(student, student)
    path = Path("save/models") / f"{teacher}_vanilla" / "ckpt_epoch_240.pth"
    path.parent.mkdir(parents=True)
    torch.save({"model": models.model_dict[teacher](num_classes=100).state_dict()}, path)

    sys.argv = ["train_student.py", "--path_t", f"./{path}", "--model_s", student, *THEIR_OPTIONS[method]]
    sys.argv += ["--epochs", "1", "--batch_size", str(options.batch), "--num_workers", str(options.workers)]
    script: Any = __import__("train_student")
    usual, limited = script.train, []

    def train(epoch: int, loader: Any, *rest: Any) -> Any:
        limited.append(Limited(loader, options.seconds))
        return usual(epoch, limited[0], *rest)

    script.train, script.validate = train, lambda *_: (0.0, 0.0, 0.0)
    script.main()
    return limited[0].speed


def _logger() -> types.ModuleType:
    """A stand-in for tensorboard_logger that writes one line per value."""

    class Logger:
        def __init__(self, logdir: str, flush_secs: int = 2) -> None:
            self.path = Path(logdir) / "log.txt"

        def log_value(self, name: str, value: Any, step: int) -> None:
            with self.path.open("a") as file:
                print(name, float(value), step, file=file)

    module: Any = types.ModuleType("tensorboard_logger")
    module.Logger = Logger
    return module


class Stopwatch:
    """A callback that times our loop and ends it when the time is over."""

    def __init__(self, seconds: float, batch: int) -> None:
        self.seconds, self.batch = seconds, batch
        self.began, self.steps, self.speed = 0.0, 0, 0.0

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Do nothing; timing has not started."""

    def step(self, step: int) -> None:
        """Check the clock."""
        self.steps += 1
        if self.steps == WARM:
            self.began = time.perf_counter()
        elif self.steps > WARM and time.perf_counter() - self.began > self.seconds:
            self.speed = (self.steps - WARM) * self.batch / (time.perf_counter() - self.began)
            raise Enough

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Do nothing; an epoch's end is part of training."""


def ours(options: argparse.Namespace, teacher: str, student: str, method: str) -> float:
    """Train as `sftn distill` does, including checkpoints and log, in the current folder."""
    import torch

    from sftn.data.load import load
    from sftn.networks import build
    from sftn.networks.weights import save_weights
    from sftn.runs.runner import train
    from sftn.spec.execution import Execution
    from sftn.spec.run import Data, Run, Weights
    from sftn.spec.schedule import Schedule
    from sftn.storage.json_files import sha256
    from sftn.tasks.recipes import objective

    dataset = load("cifar100", data_dir=options.data_dir)
    weights = Path(f"{teacher}.safetensors").resolve()
    save_weights(build(teacher, 100), weights, {"network": teacher, "classes": "100"})
    run = Run(
        student,
        Data("cifar100", dataset.identity),
        0,
        Schedule(batch=options.batch),
        options.child,
        teacher=Weights(teacher, sha256(weights), str(weights)),
        objective=objective(method, alone=True),
    )
    watch = Stopwatch(options.seconds, options.batch)
    with contextlib.suppress(Enough):
        # As many threads as the peer, which PyTorch chose or the environment says.
        train(run, dataset, Path("runs"), Execution(threads=str(torch.get_num_threads())), callback=watch)
    return watch.speed


if __name__ == "__main__":
    main()
