"""The runs of the scripts: networks of a few convolutions on 48 images, trained by the ordinary commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sftn.data.dataset import Dataset, Request, Split
from sftn.data.load import SOURCES
from sftn.networks import KEYS, NETWORKS
from sftn.networks.families.layers import Head, Residual, Stage, Stem, conv_norm
from sftn.networks.staged import StagedNet
from sftn.storage.json_files import sha256
from sftn.tasks.recipes import OBJECTIVES

STANDARD, FRIENDLY = "standard teacher", "friendly teacher"
KINDS = (STANDARD, FRIENDLY, *OBJECTIVES)
"""Every kind of run: two teachers and a student with each method; ab, ft and sskd have a first stage."""
_OTHERWISE = ("seconds", "images_per_second", "environment")
"""Fields that may differ between two executions of a run: times, and whether the code was committed in between."""


def register() -> None:
    """Register the networks `narrow` and `wide` and the images `small` in this process."""
    NETWORKS.update(narrow=_narrow, wide=_wide)
    KEYS.update(narrow=(), wide=())
    SOURCES["small"] = images


def images(request: Request) -> Dataset:
    """Make 48 training and 24 test images, 3×16×16: noise with a bright corner that marks one of 4 classes."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for count in (48, 24):
        labels = torch.arange(count) % 4
        pixels = torch.randint(0, 120, (count, 3, 16, 16), generator=generator)
        for corner in range(4):
            y, x = 8 * (corner // 2), 8 * (corner % 2)
            pixels[labels == corner, :, y : y + 8, x : x + 8] += 100
        splits.append(Split(pixels.to(torch.uint8), labels))
    return Dataset("small", splits[0], splits[1], tuple("abcd"), flip=False, padding=1)


def command(kind: str, out: Path, *, epochs: int, checkpoint_seconds: float = 0.0) -> list[str]:
    """Make the arguments of `sftn` for a kind of run; a student's teacher must be finished in `out`."""
    if kind in (STANDARD, FRIENDLY):
        what = [
            "train-teacher",
            "--teacher",
            "wide",
            *(["--standard"] if kind == STANDARD else ["--student", "narrow"]),
        ]
    else:
        what = ["distill", "--teacher", str(teacher(out)), "--student", "narrow", "--method", kind]
    how = {"data": "small", "epochs": epochs, "batch": 16, "precision": "float32", "device": "cpu", "out": out}
    options = [f"--{name}={value}" for name, value in how.items()]
    return [*what, *options, f"--checkpoint-seconds={checkpoint_seconds}"]


def teacher(out: Path) -> Path:
    """Find the folder of the standard teacher."""
    return next(out.glob("wide-small-*"))


def left(folder: Path) -> dict[str, Any]:
    """Read a finished run's output, without fields that do not depend on training."""
    result = json.loads((folder / "result.json").read_text())
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "files": sorted(path.name for path in folder.iterdir()),
        "weights": sha256(folder / "weights.safetensors"),
        "result": {name: value for name, value in result.items() if name not in _OTHERWISE},
        "log": [{name: value for name, value in row.items() if name not in _OTHERWISE} for row in rows],
    }


def seconds(folder: Path) -> float:
    """Read how long a finished run was trained."""
    return float(json.loads((folder / "result.json").read_text())["seconds"])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _net(name: str, widths: Sequence[int], classes: int, channels: int) -> StagedNet:
    stages: list[nn.Module] = [
        Stage(Residual(nn.Sequential(*conv_norm(before, width, 3, stride)), None))
        for before, width, stride in zip((4, *widths), widths, (1, 2, 2))
    ]
    return StagedNet(Stem(*conv_norm(channels, 4, 3), nn.ReLU()), stages, Head(widths[-1], classes), name)


def _narrow(classes: int, channels: int = 3) -> StagedNet:
    return _net("narrow", (4, 6, 8), classes, channels)


def _wide(classes: int, channels: int = 3) -> StagedNet:
    return _net("wide", (6, 8, 12), classes, channels)
