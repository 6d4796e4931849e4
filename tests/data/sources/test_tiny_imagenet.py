"""Tiny-ImageNet as a folder and as a .zip: the same images either way, and what can be wrong with them."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sftn.data.dataset import fingerprint
from sftn.data.load import load
from sftn.data.loader import evaluation_batches
from sftn.data.sources import tiny_imagenet
from sftn.errors import InputError
from tests.support.messages import of

WNIDS = ("n02", "n01", "n03")
REAL = Path(__file__).parents[4] / "shared" / "data" / "tiny-imagenet-200-small.zip"


def jpeg(value: int, mode: str = "RGB", side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), value if mode == "L" else (value, value, value)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(root: Path) -> Path:
    """A folder in the official layout: 4 training and 2 validation images of each of 3 classes."""
    place = root / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        (place / "train" / wnid / "images").mkdir(parents=True)
        (place / "train" / wnid / f"{wnid}_boxes.txt").write_text("a\t0\t0\t1\t1\n")
        for i in range(4):
            grey = "L" if i == 3 else "RGB"
            (place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG").write_bytes(jpeg(60 * label + 10 * i, grey))
    (place / "val" / "images").mkdir(parents=True)
    lines = []
    for i in range(6):
        (place / "val" / "images" / f"val_{i}.JPEG").write_bytes(jpeg(40 * i))
        lines.append(f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t0\t63\t63")
    (place / "val" / "val_annotations.txt").write_text("\n".join([*lines, f"val_9.JPEG\t{WNIDS[0]}\t0\t0\t1\t1"]))
    (place / "wnids.txt").write_text("\n".join(WNIDS))
    (place / "words.txt").write_text("n01\tcrane, bird\nn02\tcrane\nn03\tgoldfish, Carassius auratus\n")
    return place


def pack(place: Path, path: Path, without: str = "\0") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(place.rglob("*")):
            if without not in file.name:
                archive.write(file, f"{place.name}/{file.relative_to(place).as_posix()}")
    return path


def test_what_was_understood_and_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = write(tmp_path)
    caplog.set_level("INFO", "sftn")
    load("tiny-imagenet", data_dir=tmp_path)
    assert of(caplog, "tiny_imagenet") == [
        "tiny-imagenet: train 12, validation 6, test 0 → trained on 12, tested on 6 (validation); 3 classes: "
        "crane (n02), crane (n01), goldfish"
    ]
    (place / "train" / "n01" / "images" / "more.png").write_bytes(jpeg(5))
    caplog.clear()
    load("tiny-imagenet", data_dir=tmp_path)
    assert (
        "tiny-imagenet: left out: 1 of the files in train/ and val/, such as train/n01/images/more.png"
        in caplog.messages
    )


def test_folder_and_zip_are_the_same(tmp_path: Path) -> None:
    place = write(tmp_path / "one")
    (tmp_path / "two").mkdir()
    packed = pack(place, tmp_path / "two" / "tiny-imagenet-200.zip")
    other = shutil.copy(packed, tmp_path / "mine.zip")
    data = load("tiny-imagenet", data_dir=tmp_path / "one")
    assert (data.image, data.padding) == ((3, 64, 64), 8)
    assert data.classes == ("crane (n02)", "crane (n01)", "goldfish")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    levels = data.train.images[:, 0, 30, 30].int()
    assert torch.equal(levels, torch.tensor([60 * label + 10 * i for label in range(3) for i in range(4)]).int())
    for where in (place, tmp_path / "two", packed, Path(other)):
        assert fingerprint(load("tiny-imagenet", data_dir=where)) == fingerprint(data)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["tiny-imagenet-200.zip"]


def test_other_sizes_and_parts(tmp_path: Path) -> None:
    data = load("tiny-imagenet", data_dir=write(tmp_path), size=32, classes=2, limit=4)
    assert (data.image, len(data.train), len(data.test), data.padding) == ((3, 32, 32), 4, 4, 4)


def refused(data_dir: Path, match: str, size: int | None = None) -> None:
    with pytest.raises(InputError, match=match) as error:
        load("tiny-imagenet", data_dir=data_dir, size=size)
    assert "\n" not in str(error.value)


def test_wrong_archives_are_refused(tmp_path: Path) -> None:
    place = write(tmp_path)
    path = pack(place, tmp_path / "a.zip")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        path.write_bytes(content)
        refused(path, "truncated or cannot be read")
    # Bytes inside a file: the checksum tells.
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("tiny-imagenet-200/train/n01/images/n01_2.JPEG")
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    path.write_bytes(whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 8]) + whole[middle + 8 :])
    refused(path, "truncated or cannot be read")
    refused(pack(place, path, "wnids"), "lacks wnids.txt")
    refused(pack(place, path, "annotations"), "lacks val/val_annotations.txt")
    refused(pack(place, path, "val_"), "lacks val/val_annotations.txt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wnids.txt", "n01\nn02")
        archive.writestr("train/n01/images/a.JPEG", jpeg(3))
        archive.writestr("val/val_annotations.txt", "a.JPEG\tn01\t0\t0\t1\t1\n")
    refused(path, "no images in val/")


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write(tmp_path)
    packed = pack(place, tmp_path / "a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(tiny_imagenet, "LARGEST", 300)
        for where in (place, packed):
            refused(where, "larger than")


@pytest.mark.parametrize("packed", [False, True])
def test_large_sizes_are_streamed_by_workers_that_open_the_archive_themselves(packed: bool, tmp_path: Path) -> None:
    place = write(tmp_path)
    where = pack(place, tmp_path / "a.zip") if packed else place
    data = load("tiny-imagenet", data_dir=where, size=70, memory=18 * 3 * 69 * 70 / 2**30, workers=2)
    assert (data.streamed, data.resize, len(data.train)) == (True, 80, 12)
    raw = (torch.zeros(3), torch.ones(3))
    levels = torch.cat(
        [batch.images[:, 0, 30, 30] for batch in evaluation_batches(data.train, batch=5, normalisation=raw)]
    )
    assert levels.tolist() == [60 * label + 10 * i for label in range(3) for i in range(4)]
    assert fingerprint(data) == fingerprint(load("tiny-imagenet", data_dir=place, size=70, stream=True))


def test_wrong_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "absent", "tiny-imagenet is missing")
    place = write(tmp_path)
    refused(place, "size -1", size=-1)
    image = place / "train" / "n01" / "images" / "n01_0.JPEG"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    refused(place, "n01_0.JPEG is not a readable image")
    image.write_bytes(whole)
    annotations = place / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("n03", "n99"))
    refused(place, "line 3 names no class")
    annotations.write_text(text)
    (place / "wnids.txt").write_text("n01\nn02")
    refused(place, "wnids.txt does not name")
    (place / "wnids.txt").write_text("n01\nn01")
    refused(place, "does not list each class once")


@pytest.mark.skipif(not REAL.exists(), reason=f"no real Tiny-ImageNet at {REAL}")
@pytest.mark.slow
def test_the_real_one() -> None:
    data = load("tiny-imagenet", data_dir=REAL, size=32)
    assert (len(data.classes), data.train.labels.bincount().unique().tolist()) == (200, [40])
    assert data.test.labels.bincount().unique().tolist() == [10]
    assert "Egyptian cat" in data.classes
    assert np.ptp(data.train.images.float().mean((1, 2, 3)).numpy()) > 100
