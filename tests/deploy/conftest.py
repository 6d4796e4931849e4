from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.cli import resolve
from sftn.cli.options import DataOptions, TrainOptions
from sftn.runs.runner import train
from sftn.spec.execution import Conduct
from sftn.tasks import recipes

CLASSES = ("blue", "green", "red")


def paint(path: Path, channel: int, seed: int, size: tuple[int, int] = (40, 24)) -> None:
    """A noisy photograph in one colour."""
    pixels = np.random.default_rng(seed).integers(0, 100, (size[1], size[0], 3))
    pixels[..., channel] += 130
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of three classes."""
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(12):
            paint(root / name / f"{number}.png", 2 - label, 100 * label + number)
    return root


@pytest.fixture(scope="session")
def student(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student's run; its teacher's lies beside it."""
    out = tmp_path_factory.mktemp("runs")
    data = DataOptions(data=f"folder:{photos}", size=16)
    how = TrainOptions(epochs=4, batch=9, lr=0.05, precision="float32", device="cpu", out=out)
    images = resolve.images(data)
    teacher = resolve.plain_run("resnet14", images, data, how, 0)
    run = replace(
        resolve.plain_run("resnet8", images, data, how, 0), teacher=teacher, objective=recipes.objective("kd")
    )
    for each in (teacher, run):
        train(each, images, out, Conduct(device="cpu"))
    return out / run.folder
