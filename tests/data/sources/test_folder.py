"""One folder a class: splits, decoding, and everything that can be wrong with a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sftn.data.dataset import fingerprint
from sftn.data.load import load
from sftn.errors import InputError
from tests.support.messages import of


def paint(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    """An image of one colour, lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 255 - value, 7)).save(path)


def fill(root: Path, classes: Iterable[str] = ("cat", "dog"), each: int = 5) -> Path:
    for label, name in enumerate(classes):
        for i in range(each):
            paint(root / name / f"{i}.png", 100 * label + i)
    return root


def values(images: torch.Tensor) -> list[int]:
    """The red level that `paint` gave each image."""
    assert (images[:, 0] == images[:, 0, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def refused(root: Path, match: str, **options: object) -> str:
    with pytest.raises(InputError, match=match) as error:
        load(f"folder:{root}", **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_given_splits_are_kept(name, tmp_path):
    fill(tmp_path / "train", ("b", "a", "c"), 3)
    paint(tmp_path / name / "c" / "x.png", 50)
    paint(tmp_path / name / "a" / "y.png", 60)
    dataset = load(f"folder:{tmp_path}")
    assert dataset.classes == ("a", "b", "c")
    assert dataset.image == (3, 32, 32)
    assert values(dataset.train.images) == [100, 101, 102, 0, 1, 2, 200, 201, 202]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert values(dataset.test.images) == [60, 50]
    assert dataset.test.labels.tolist() == [0, 2]
    assert (dataset.flip, dataset.padding) == (True, 4)


def test_test_goes_before_val(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", each=2)
    fill(tmp_path / "test", each=1)
    assert len(load(f"folder:{tmp_path}").test) == 2


def test_a_folder_without_splits_is_parted_by_the_hash_of_the_names(tmp_path):
    fill(tmp_path / "one", ("cat", "train"), 10)
    paint(tmp_path / "one" / "cat" / "notes.txt.png", 77)
    (tmp_path / "one" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "one" / ".hidden").mkdir()
    dataset = load(f"folder:{tmp_path / 'one'}")
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    names = sorted((f"train/{i}.png" for i in range(10)), key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = {100 + int(name[6]) for name in names[:2]}
    assert set(values(dataset.test.images)[2:]) == kept
    together = sorted(values(dataset.train.images) + values(dataset.test.images))
    assert together == sorted([*range(10), 77, *range(100, 110)])
    # Neither the place nor the order in which the files were made matters.
    fill(tmp_path / "two", ("train",), 0)
    for i in reversed(range(10)):
        paint(tmp_path / "two" / "train" / f"{i}.png", 100 + i)
    paint(tmp_path / "two" / "cat" / "notes.txt.png", 77)
    for i in range(10):
        paint(tmp_path / "two" / "cat" / f"{i}.png", i)
    assert fingerprint(load(f"folder:{tmp_path / 'two'}")) == fingerprint(dataset)


def test_images_may_lie_deeper_as_in_tiny_imagenet(tmp_path):
    for name in ("n01", "n02"):
        for i in range(3):
            paint(tmp_path / "train" / name / "images" / f"{i}.png", i)
        paint(tmp_path / "val" / name / "images" / "0.png", 9)
    dataset = load(f"folder:{tmp_path}", size=16)
    assert dataset.image == (3, 16, 16)
    assert dataset.padding == 2
    assert (len(dataset.train), len(dataset.test)) == (6, 2)


def test_a_relative_path_may_lie_in_data_dir(tmp_path):
    fill(tmp_path / "pets")
    assert len(load("folder:pets", data_dir=tmp_path).train) == 8


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "eps"])
def test_an_unreadable_image_is_named(kind, tmp_path):
    fill(tmp_path)
    bad = tmp_path / "dog" / "bad.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(
        {"text": b"hello", "empty": b"", "truncated": whole[: len(whole) // 2], "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}[
            kind
        ]
    )
    assert str(bad) in refused(tmp_path, "not a readable image")


@pytest.mark.parametrize("pixels", [33 * 33, 64 * 64])
def test_a_huge_image_is_refused_before_it_is_decoded(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32)
    fill(tmp_path)
    side = int(pixels**0.5)
    paint(tmp_path / "dog" / "huge.png", 1, (side, side))
    assert "huge.png" in refused(tmp_path, "is huge")


def test_wrong_folders_are_refused(tmp_path):
    refused(tmp_path / "absent", "is not a folder")
    refused(tmp_path, "has no folders")
    fill(tmp_path / "one", ("cat",))
    assert "2 folders" in refused(tmp_path / "one", "1 class")
    fill(tmp_path / "hollow")
    (tmp_path / "hollow" / "eel").mkdir()
    assert str(tmp_path / "hollow" / "eel") in refused(tmp_path / "hollow", "has no images")
    fill(tmp_path / "single")
    paint(tmp_path / "single" / "eel" / "0.png", 3)
    assert "eel" in refused(tmp_path / "single", "has one image")
    fill(tmp_path / "more" / "train")
    fill(tmp_path / "more" / "test", ("cat", "eel"))
    assert "eel" in refused(tmp_path / "more", "lacks")
    fill(tmp_path / "good")
    refused(tmp_path / "good", "size 0", size=0)
    with pytest.raises(InputError, match="folder:PATH"):
        load("folder:")


def test_more_than_the_memory_bound_is_streamed_without_decoding(tmp_path, caplog):
    fill(tmp_path)
    paint(tmp_path / "cat" / "bad.png", 0)
    (tmp_path / "cat" / "bad.png").write_bytes(b"never looked at")
    gib = (11 * 3 * 16 * 16 - 1) / 2**30
    dataset = load(f"folder:{tmp_path}", size=16, memory=gib)
    assert dataset.streamed
    assert (dataset.image, dataset.resize, dataset.padding) == ((3, 16, 16), 18, 0)
    (said,) = of(caplog, "from_files")
    assert "streamed" in said
    refused(tmp_path, "bad.png", size=16, stream=False)
    with pytest.raises(InputError, match="may be negative"):
        load(f"folder:{tmp_path}", workers=-1)


def test_damaged_images_are_counted_or_left_out(tmp_path, caplog):
    fill(tmp_path / "train")
    fill(tmp_path / "test", each=2)
    whole = fingerprint(load(f"folder:{tmp_path}"))
    for place in ("train/cat/x.png", "train/dog/y.png", "test/dog/z.png"):
        (tmp_path / place).write_bytes(b"no image")
    assert "x.png is not a readable image (UnidentifiedImageError): repair or remove it (and 2 more), or" in refused(
        tmp_path, "--damaged skip"
    )
    dataset = load(f"folder:{tmp_path}", damaged="skip")
    assert (dataset.skipped, len(dataset.train), len(dataset.test)) == (3, 10, 4)
    *named, last = of(caplog, "from_files")
    assert [line.partition(":")[0] for line in named] == ["left out"] * 3
    assert last == "3 damaged images left out"
    assert fingerprint(dataset) == whole
    for path in (tmp_path / "train" / "cat").glob("*.png"):
        path.write_bytes(b"")
    refused(tmp_path, "all training images of cat are damaged", damaged="skip")


def test_a_file_instead_of_a_folder_is_said(tmp_path):
    (tmp_path / "pets.csv").write_text("a,b")
    refused(tmp_path / "pets.csv", "is a file, not a folder")
