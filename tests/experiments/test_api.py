"""The verbs of the package: names, modules, functions, finished runs; names, folders, data sets of PyTorch's kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import sftn
from sftn.networks import NETWORKS
from tests.support import tiny

pytestmark = pytest.mark.usefixtures("tiny_networks")
SMALL: dict[str, Any] = {"epochs": 1, "batch": 16, "precision": "float32", "device": "cpu", "jobs": "1"}


class Net(nn.Sequential):
    def __init__(self, width: int, classes: int = tiny.CLASSES) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _registry() -> Any:
    before = dict(NETWORKS)
    yield
    NETWORKS.clear()
    NETWORKS.update(before)


def pictures() -> tuple[Dataset[Any], Dataset[Any]]:
    data = tiny.dataset()
    return TensorDataset(data.train.images, data.train.labels), TensorDataset(data.test.images, data.test.labels)


def test_a_teacher_then_its_student_then_what_they_know(tmp_path: Path) -> None:
    teacher = sftn.train_teacher("wide", "tiny", pictures(), out=tmp_path, **SMALL)
    assert teacher.run.friendly is not None
    student = sftn.distill(teacher, "tiny", pictures(), method="at", out=tmp_path, **SMALL)
    assert student.run.teacher == teacher.run
    assert str(student.folder) in str(student)
    network, data = student.network, student.dataset
    assert not network.training
    images = (data.test.images.float() - data.normalisation[0].view(3, 1, 1)) / data.normalisation[1].view(3, 1, 1)
    with torch.no_grad():
        right = (network(images).argmax(1) == data.test.labels).float().mean().item()
    assert 100 * right == pytest.approx(student.accuracy)


def test_modules_and_functions_are_networks_too(tmp_path: Path) -> None:
    found = sftn.compare(lambda: Net(6), Net(4), pictures(), seeds=2, out=tmp_path, **SMALL)
    assert len(list(tmp_path.glob("*/result.json"))) == 2 * 5
    assert all(len(values) == 2 for values in found.accuracies.values())
    again = sftn.compare(lambda: Net(6), next(iter([Net(4)])), pictures(), seeds=1, out=tmp_path / "b", **SMALL)
    assert again.accuracies.keys() != found.accuracies.keys(), "other weights at the start are another network"


def test_a_trained_module_teaches_as_it_is(tmp_path: Path) -> None:
    teacher = Net(6).eval()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = sftn.distill(teacher, Net(4), pictures(), out=tmp_path, **SMALL)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert student.run.teacher is not None
    again = sftn.distill(teacher, student.network, pictures(), out=tmp_path, **SMALL)
    assert again.run.id != student.run.id


def test_a_folder_is_a_data_set(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((8, 8, 3), 100 * label + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    found = sftn.train_teacher("resnet8", data=tmp_path / "photos", size=16, out=tmp_path, **{**SMALL, "batch": 4})
    assert (found.run.data.name, found.run.data.path) == ("folder:photos", str(tmp_path / "photos"))
    assert found.run.data.size == 16


class Strange(nn.Module):
    """Its children do not run one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, tiny.CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.a(images) * self.b(images)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda out: sftn.compare("tiny", Strange(), pictures(), out=out),
            r"sftn\.staged\(net, \(3, \d+, \d+\), stem=",
        ),
        (lambda out: sftn.compare("tiny", Net(4, 7), pictures(), out=out), "has 7 classes"),
        (lambda out: sftn.compare("tiny", 3, pictures(), out=out), "int is not a network"),
        (lambda out: sftn.compare("tiny", "tiny", 3, out=out), "data must be a name"),
        (lambda out: sftn.compare("tiny", "tiny", pictures(), epoch=2, out=out), "did you mean epochs"),
        (lambda out: sftn.distill("/nowhere", "tiny", pictures(), out=out), "neither the folder of a run"),
        (lambda out: sftn.train_teacher(nn.Flatten(), None, pictures(), out=out), "no parameters"),
    ],
)
def test_what_is_wrong_is_one_line(call: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(sftn.InputError, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("result.json"))


def test_images_are_uint8_and_not_normalised() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    whole = TensorDataset((images * 255).round() / 255, labels)
    data = sftn.from_torch(whole, whole)
    assert torch.equal(data.train.images, (images * 255).round().to(torch.uint8))
    for bad, words in ((images - 0.5, "normalisation"), (images, "between the 256 levels")):
        with pytest.raises(sftn.InputError, match=words):
            sftn.from_torch(TensorDataset(bad, labels), whole)
    with pytest.raises(sftn.InputError, match="there are 1 classes"):
        sftn.from_torch(whole, whole, classes=["only"])


def test_the_package_is_there_at_once_and_offers_what_it_says() -> None:
    code = "import sys, sftn; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in sftn.__all__:
        assert getattr(sftn, name) is not None
    assert set(sftn.__all__) <= set(dir(sftn))
    with pytest.raises(AttributeError, match="compere"):
        sftn.compere  # noqa: B018
