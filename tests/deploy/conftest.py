from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.runs import requests
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.training import Training
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
    asked, execution = Images(data=f"folder:{photos}", size=16), Execution(device="cpu")
    how = Training(epochs=4, batch=9, lr=0.05, precision="float32")
    images = requests.load_images(asked)
    teacher, alone = (requests.plain_run(name, images, asked, how, execution) for name in ("resnet14", "resnet8"))
    run = replace(alone, teacher=teacher, objective=recipes.objective("kd"))
    for each in (teacher, run):
        train(each, images, out, execution)
    return out / run.folder
