"""Distillation by timm's task, by torchdistill's box and by ours, in turn, on real CIFAR-100. Prints Markdown.

    pip install --target SITE --no-deps timm==1.0.31 torchdistill==1.1.5 torchvision==0.28.0 \\
        huggingface_hub pyyaml scipy cython pillow
    python benchmarks/peers.py --site SITE --data-dir DIR [--pair resnet32x4:resnet8x4] [--methods kd crd]

SITE is a folder of its own, so that nothing is added to the environment that sftn is installed in; the torchvision is
the one for torch 2.13. DIR contains `cifar-100-python`, the official files. Every loop runs in its own process for some
seconds after a few warm-up steps, with the same two networks (ours, so that only the loops differ), random weights,
batch size, SGD, loss weights and number of threads.

- timm: `LogitDistillationTask` in float32 and under autocast to bf16, channels-last, stepped as timm's `train.py` does:
  the loss is read after every step. timm has no CRD.
- torchdistill: `DistillationBox` with its `KDLoss`, or with its `CRDLoss`, `Linear4CRD` and `CRDDatasetWrapper`,
  stepped as its `examples/torchvision/image_classification.py` does. It has no autocast, so float32 only. The teacher
  is put into eval mode, which neither the box nor that example does.
- Both read torchvision's CIFAR100 with the usual crops and flips through a DataLoader with `--workers` processes.
- ours: what `sftn distill` does, checkpoints and log included, without worker processes.

What is timed is training, from loader to optimiser; nobody evaluates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peer import Limited
from peer import ours as our_loop
from torch import nn

from sftn.networks import build
from sftn.networks.foreign.torchvision_import import imported
from sftn.profiling.roofline import machine

LOOPS: dict[str, tuple[str, ...]] = {
    "kd": ("timm float32", "torchdistill float32", "ours float32", "timm bf16", "ours bf16"),
    "crd": ("torchdistill float32", "ours float32", "ours bf16"),
}
IMAGES, CLASSES, NEGATIVES = 50_000, 100, 16_384
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True, help="where the peers are installed")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pair", default="resnet32x4:resnet8x4")
    parser.add_argument("--methods", nargs="+", default=["kd", "crd"], choices=LOOPS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of the training process")
    parser.add_argument("--workers", type=int, default=2, help="of the peers' loader")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.site, options.data_dir = options.site.resolve(), options.data_dir.resolve()
    torch.set_num_threads(options.threads)
    if options.child is None:
        compare(options)
        return
    # After everything that is installed: what both need, such as torch, is the environment's.
    sys.path.append(str(options.site))
    imported("torchvision")  # both import it, and its CUDA wheel needs help beside a CPU's torch
    package, options.child = options.child.split()  # the precision is all that our loop is told
    loop = {"timm": timms, "torchdistill": torchdistills, "ours": ours}[package]
    print("RESULT " + json.dumps(loop(options, options.methods[0])), flush=True)


def compare(options: argparse.Namespace) -> None:
    """Run everything in turn and print the results."""
    print(f"{options.pair.replace(':', ' → ')}, batch {options.batch}, {options.rounds} × {options.seconds:g} s each;")
    print(f"the peers' loaders have {options.workers} workers; {machine()}\n")
    print("| method | loop | images/s | ours, times as fast |")
    print("|---|---|---:|---:|", flush=True)
    for method in options.methods:
        found: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for child in LOOPS[method]:
                found.setdefault(child, []).append(spawn(options, child, method))
        for child, speeds in found.items():
            mine = found["ours " + child.split()[1]]
            ratio = "" if mine is speeds else f"{statistics.median(a / b for a, b in zip(mine, speeds)):.2f}"
            speed = f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})"
            print(f"| {method} | {child} | {speed} | {ratio} |", flush=True)


def spawn(options: argparse.Namespace, child: str, method: str) -> float:
    """Run one loop in its own process and folder; return images per second."""
    command = [sys.executable, __file__, "--child", child, "--methods", method]
    for name in ("site", "data_dir", "pair", "seconds", "batch", "threads", "workers"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        raise SystemExit(f"{child} with {method} ended without a result:\n{done.stdout[-2000:]}")
    return float(json.loads(result.removeprefix("RESULT ")))


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Teacher and student."""
    teacher, student = (build(name, CLASSES) for name in options.pair.split(":"))
    return teacher.eval(), student


def cifar(options: argparse.Namespace) -> Any:
    """torchvision's CIFAR-100, its MD5 not checked, so that rewritten files work, with the usual augmentation."""
    datasets, transforms = imported("torchvision.datasets"), imported("torchvision.transforms")
    datasets.CIFAR100.train_list, datasets.CIFAR100.test_list = [["train", None]], [["test", None]]
    datasets.CIFAR100.meta = datasets.CIFAR100.meta | {"md5": None}
    how = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    how.append(transforms.Normalize(MEAN, STD))
    return datasets.CIFAR100(options.data_dir, train=True, transform=transforms.Compose(how))


def timms(options: argparse.Namespace, method: str) -> float:
    """Steps of timm's task."""
    task_module: Any = __import__("timm.task", fromlist=["LogitDistillationTask"])
    optimisers: Any = __import__("timm.optim", fromlist=["create_optimizer_v2"])
    teacher, student = networks(options)
    for network in (teacher, student):  # equal, so that the images are not normalised again for the teacher
        network.pretrained_cfg = {"mean": MEAN, "std": STD}  # type: ignore[assignment]
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = task_module.DistillationTeacher(teacher)
    task = task_module.LogitDistillationTask(
        student, teacher, nn.CrossEntropyLoss(), task_loss_weight=0.1, temperature=4.0, verbose=False
    )
    optimiser = optimisers.create_optimizer_v2(student, opt="momentum", **SGD)
    shuffled: Iterable[Any] = torch.utils.data.DataLoader(
        cifar(options), options.batch, shuffle=True, num_workers=options.workers, drop_last=True
    )
    loader = Limited(shuffled, options.seconds)
    task.get_trainable_module().train()
    optimiser.zero_grad()
    for images, labels in loader:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.child == "bf16"):
            loss = task(images, labels)["loss"]
        loss.backward()
        optimiser.step()
        loss.item()
        optimiser.zero_grad()
    return loader.speed


def torchdistills(options: argparse.Namespace, method: str) -> float:
    """Steps of torchdistill's box."""
    boxes: Any = __import__("torchdistill.core.distillation", fromlist=["get_distillation_box"])
    teacher, student = networks(options)
    own = {"requires_grad": False} if method == "kd" else {"frozen_modules": ["model"]}
    alone = {"forward_proc": "forward_batch_only"}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": torch.utils.data.RandomSampler},
            "kwargs": {"batch_size": options.batch, "num_workers": options.workers, "drop_last": True},
        },
        "teacher": own | (linear(teacher, "normalizer") if method == "crd" else alone),
        "student": linear(student, "empty") if method == "crd" else alone,
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms(method)}},
    }
    if method == "crd":
        negatives = {"num_negative_samples": NEGATIVES, "mode": "exact", "ratio": 1.0}
        config["train_data_loader"]["dataset_wrapper"] = {"key": "CRDDatasetWrapper", "kwargs": negatives}  # type: ignore[index]
    device = torch.device("cpu")
    box = boxes.get_distillation_box(teacher, student, {"train": cifar(options)}, config, device, None, False, 1)
    loader = Limited(box.train_data_loader, options.seconds)
    box.pre_epoch_process(epoch=0)
    box.teacher_model.eval()
    for images, labels, more in loader:
        loss = box.forward_process(images, labels, more)
        box.post_forward_process(loss=loss)
        loss.item()
        if torch.isnan(loss) or torch.isinf(loss):
            raise ValueError(f"the loss is {loss}")
    return loader.speed


def linear(network: nn.Module, hooked: str) -> dict[str, Any]:
    """The configuration of a network with a linear layer for CRD; `hooked` is the module that the loss reads it by."""
    head: Any = network.head
    kwargs = {"in_features": head.linear.in_features, "out_features": 128}
    wrapper = {"key": "Linear4CRD", "kwargs": {"input_module_path": "model.head.pool", "linear_kwargs": kwargs}}
    hooks = {"input": ["empty"] * (hooked == "empty"), "output": ["model.head.pool", "normalizer"]}
    return {"forward_proc": "forward_batch_supp_dict", "auxiliary_model_wrapper": wrapper, "forward_hook": hooks}


def terms(method: str) -> dict[str, Any]:
    """The terms of the loss, with the weights that `THEIR_OPTIONS` in `peer.py` has."""
    whole = {"is_from_teacher": False, "module_path": ".", "io": "output"}
    if method == "kd":
        kwargs: dict[str, Any] = {"temperature": 4.0, "alpha": 0.1}
        for side in ("student", "teacher"):
            kwargs |= {f"{side}_module_path": ".", f"{side}_module_io": "output"}
        return {"kd": {"criterion": {"key": "KDLoss", "kwargs": kwargs}, "weight": 1.0}}
    paths = {f"{side}_norm_module_path": "normalizer" for side in ("student", "teacher")}
    sizes = {"input_size": 128, "output_size": IMAGES, "num_samples": IMAGES, "num_negative_samples": NEGATIVES}
    contrast = {"key": "CRDLoss", "kwargs": paths | sizes | {"student_empty_module_path": "empty"}}
    entropy = {"criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}}, "weight": 1.0}
    entropy["criterion_wrapper"] = {
        "key": "SimpleLossWrapper",
        "kwargs": {"input": whole, "target": {"uses_label": True}},
    }
    return {"ce": entropy, "crd": {"criterion": contrast, "weight": 0.8}}


def ours(options: argparse.Namespace, method: str) -> float:
    """Our loop."""
    teacher, student = options.pair.split(":")
    return our_loop(options, teacher, student, method)


if __name__ == "__main__":
    main()
