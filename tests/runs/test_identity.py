"""Which images a run is of: names of classes count, the spelling of a path does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from sftn.data.dataset import Dataset
from sftn.data.load import load, located
from sftn.data.sources.torch_dataset import from_torch
from sftn.errors import InputError
from sftn.runs import requests
from sftn.runs.build import load_data
from sftn.runs.folder import RunFolder
from sftn.runs.train import train_teacher
from sftn.runs.trained import Trained, verify
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.jobs import TrainTeacher, asked
from sftn.spec.run import Run
from sftn.spec.training import Training

NAMES = {"cat": 0, "dog": 1, "fox": 2}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of noisy pictures of three colours, beside the working directory's other content."""
    draws = np.random.default_rng(0)
    for name, channel in NAMES.items():
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = draws.integers(0, 90, (8, 8, 3))
            pixels[..., channel] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def run_of(name: str, data_dir: Path | None = None) -> Run:
    images = Images(data=name, data_dir=data_dir, size=8)
    how = Training(epochs=1, batch=8, precision="float32")
    return requests.plain_run("resnet8", requests.load_images(images), images, how, Execution(device="cpu"))


def test_the_spelling_of_a_path_is_not_part_of_a_run(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    spelled = ["folder:photos", "folder:./photos", "folder:photos/", f"folder:{photos}", "folder:else/../photos"]
    runs = [run_of(name) for name in spelled] + [run_of("folder:photos", tmp_path.parent / tmp_path.name)]
    assert len({run.folder for run in runs}) == 1
    assert len(set(runs)) == 1
    assert {(run.data.name, run.data.path) for run in runs} == {("folder:photos", str(photos))}
    assert load("folder:./photos/", size=8).name == "folder:photos"
    assert located("digits") == ("digits", None)
    assert located("hf:someone/something") == ("hf:someone/something", None)


def test_a_run_finds_its_images_from_another_working_directory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run_of("folder:photos").data
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_data(data, None).identity == data.fingerprint
    photos.rename(tmp_path / "elsewhere" / "photos")
    assert load_data(data, None).identity == data.fingerprint, "moved, it is found by its name"
    (tmp_path / "elsewhere" / "photos").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="is not a folder"):
        load_data(data, None)
    assert load_data(replace(data, name="folder:gone", path=None), tmp_path).identity == data.fingerprint


def test_renamed_classes_are_another_run_and_the_old_one_is_refused(photos: Path, tmp_path: Path) -> None:
    job = {"teacher": "resnet8", "standard": True, "data": "folder:photos", "size": 8, "epochs": 1, "batch": 8}
    job |= {"device": "cpu", "precision": "float32", "out": tmp_path / "runs"}
    before = train_teacher(asked(TrainTeacher, job))
    (photos / "fox").rename(photos / "vixen")
    after = train_teacher(asked(TrainTeacher, job))
    assert before.run.id != after.run.id
    assert json.loads((after.folder / "result.json").read_text())["images"]["classes"] == ["cat", "dog", "vixen"]
    changed = verify(RunFolder(before.folder), requests.load_images(Images(data="folder:photos", size=8)), "cpu")
    assert any("the images are not those of folder:photos" in fault for fault in changed)
    trained = Trained.of(before.folder)
    images = trained.images()
    with pytest.raises(InputError, match=r"\(cat, dog, fox\), and folder:photos has 3 classes \(cat, dog, vixen\)"):
        trained.network(images)


def test_another_folder_of_the_same_name_is_not_the_runs_own(photos: Path, tmp_path: Path) -> None:
    job = {"teacher": "resnet8", "standard": True, "data": "folder:photos", "size": 8, "epochs": 1, "batch": 8}
    job |= {"device": "cpu", "precision": "float32", "out": tmp_path / "runs"}
    found = train_teacher(asked(TrainTeacher, job))
    other = tmp_path / "other" / "photos"
    for name in NAMES:
        (other / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(other / name / f"{number}.png")
    trained = Trained.of(found.folder)
    assert len(trained.images().train) == 24
    assert len(trained.images("folder:./photos").train) == 24
    assert len(trained.images(f"folder:{other}").train) == 12


def test_runs_of_earlier_versions_still_have_their_images(photos: Path) -> None:
    """They recorded no names of classes, and a path as it was typed."""
    dataset = load("folder:photos", size=8)
    old = replace(dataset, named=False).identity
    assert old != dataset.identity
    assert dataset.matches(old)
    assert dataset.matches(dataset.identity)
    assert not dataset.matches("0" * 16)
    data = replace(run_of("folder:photos").data, name="folder:./photos", path=None)
    assert load_data(data, None).identity == dataset.identity


def test_names_of_a_persons_own_data_count_and_those_of_built_in_sets_do_not() -> None:
    images, labels = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8), torch.arange(20) % 2
    pair = [TensorDataset(images, labels)] * 2
    named = [from_torch(*pair, classes=classes).identity for classes in (("a", "b"), ("b", "a"), ("a", "b"))]
    assert named[0] == named[2] != named[1]
    digits = load("digits")
    assert isinstance(digits, Dataset)
    assert replace(digits, classes=tuple("abcdefghij")).identity == digits.identity
