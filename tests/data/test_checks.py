"""Images that are there twice, in memory and in files; classes with few training or no test images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from sftn.data import checks
from sftn.data.checks import check, nearly_equal
from sftn.data.dataset import Split
from sftn.data.load import load
from sftn.data.sources.torch_dataset import from_torch
from sftn.errors import InputError
from tests.support.images import images
from tests.support.messages import of


def pictures(count: int, side: int = 32) -> Tensor:
    return torch.from_numpy(images(count, side).transpose(0, 3, 1, 2).copy())


def compressed(image: Tensor, quality: int = 95) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).transpose(2, 0, 1).copy())


def checked(train: Split, test: Split, caplog: pytest.LogCaptureFixture, classes: str = "ab") -> list[str]:
    check("x", train, test, tuple(classes), lambda i: f"image {i}")
    return [line for line in of(caplog, "checks") if "few training" not in line]


def test_images_apart_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    made = pictures(40)
    labels = torch.arange(40) % 2
    assert checked(Split(made[:24], labels[:24]), Split(made[24:], labels[24:]), caplog) == []
    # Nor are flat ones: two dark images nearly agree, and yet may be anything.
    flat = torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1) + torch.tensor([0, 90, 200], dtype=torch.uint8).view(
        3, 1, 1
    )
    flat = flat.expand(20, 3, 8, 8).contiguous()
    assert checked(Split(flat[::2], labels[:10]), Split(flat[1::2], labels[:10]), caplog) == []


def test_test_images_that_are_training_images_are_counted_by_label(caplog: pytest.LogCaptureFixture) -> None:
    made, labels = pictures(30), torch.arange(30) % 2
    test = torch.cat([made[20:], made[:3], made[3:5]])
    labelled = torch.cat([labels[20:], labels[:3], 1 - labels[3:5]])
    first, second = checked(Split(made[:20], labels[:20]), Split(test, labelled), caplog)
    assert first.startswith(
        "x: 5 of 15 test images are also training images (3 of the same class, 2 under another label): the "
    )
    assert second == "x: 2 images are there under two labels, such as image 3 and image 33: correct the labels"


@pytest.mark.parametrize("side", [32, 100])
def test_the_same_picture_compressed_again_is_nearly_a_training_image(
    side: int, caplog: pytest.LogCaptureFixture
) -> None:
    made, labels = pictures(30, side), torch.arange(30) % 2
    test = torch.cat([made[20:], torch.stack([compressed(image) for image in made[:4]])])
    pairs = nearly_equal((made[:20], test))
    assert pairs.tolist() == [[0, 30], [1, 31], [2, 32], [3, 33]]
    wrong = torch.cat([labels[20:], labels[:3], 1 - labels[3:4]])
    first, second = checked(Split(made[:20], labels[:20]), Split(test, wrong), caplog)
    assert first.startswith("x: 4 of 14 test images are nearly equal to one")
    assert second.startswith("x: 1 image is there nearly the same under two labels, such as image 3 and image 33")


def test_equal_and_nearly_equal_are_counted_apart(caplog: pytest.LogCaptureFixture) -> None:
    made, labels = pictures(20), torch.arange(20) % 2
    test = torch.stack([made[0], compressed(made[1])])
    (line,) = checked(Split(made, labels), Split(test, labels[:2]), caplog)
    assert "1 of 2 test images are also training images (of the same class), 1 more is nearly equal to one" in line


def test_classes_without_test_images_or_with_few_are_named(caplog: pytest.LogCaptureFixture) -> None:
    made = pictures(30)
    train = Split(made[:28], torch.tensor([0] * 10 + [1] * 9 + [2] * 9))
    check("x", train, Split(made[28:], torch.tensor([0, 2])), ("cat", "dog", "eel"))
    assert of(caplog, "checks") == [
        "x: few training images: dog 9, eel 9",
        "x: no test images of dog: the accuracy says nothing about them",
    ]


def write(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Twelve training images of two classes; one of them is under both labels, and two are test images too."""
    made = pictures(16)
    for i in range(12):
        write(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", made[i])
    write(tmp_path / "train" / "b" / "again.png", made[0])
    for i in range(2, 4):
        write(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", made[i])
        write(tmp_path / "test" / "ab"[i % 2] / f"{i + 10}.png", made[i + 10])
    return tmp_path


@pytest.mark.parametrize("stream", [False, True])
def test_folders_are_checked_whether_streamed_or_not(
    stream: bool, doubled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(f"folder:{doubled}", stream=stream)
    few, across, labels = (line.partition(": ")[2] for line in of(caplog, "checks"))
    assert few == "few training images: a 6, b 7"
    assert across.startswith("2 of 4 test images are also training images (of the same class)")
    assert (
        labels == "1 image is there under two labels, such as train/a/0.png and train/b/again.png: correct the labels"
    )


def test_what_was_not_read_in_time_is_said(
    doubled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "SECONDS", -1)
    caplog.set_level("INFO", "sftn")
    load(f"folder:{doubled}", stream=True)
    assert any("files were not searched for equal ones" in line for line in of(caplog, "checks"))
    assert not any("two labels" in line for line in caplog.messages)


def test_torch_data_sets_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    made = TensorDataset(pictures(20), torch.arange(20) % 2)
    from_torch(made, made)
    assert any("20 of 20 test images are also training images" in line for line in of(caplog, "checks"))


def test_torch_data_sets_with_other_names_for_their_labels_are_refused() -> None:
    train, test = (TensorDataset(pictures(20), torch.arange(20) % 2) for _ in range(2))
    train.classes, test.classes = ["cat", "dog", "fox"], ["cat", "fox"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"different classes \(3 and 2; dog and fox\)"):
        from_torch(train, test)
