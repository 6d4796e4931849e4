"""STL-10's binary files: their odd order of pixels, sizes, and what can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.data.load import load
from sftn.data.sources import folder
from sftn.errors import InputError

PIXELS = np.random.default_rng(5).integers(0, 256, (14, 96, 96, 3), dtype=np.uint8)
"""(N, H, W, C)"""


def write(root: Path, train: int = 9, test: int = 5) -> Path:
    """Files as the archive has them: channels, then columns from left to right, each from top to bottom."""
    place = root / "stl10_binary"
    place.mkdir(parents=True, exist_ok=True)
    for part, begin, count in (("train", 0, train), ("test", train, test)):
        content = b"".join(
            image[:, x, channel].tobytes()
            for image in PIXELS[begin : begin + count]
            for channel in range(3)
            for x in range(96)
        )
        (place / f"{part}_X.bin").write_bytes(content)
        (place / f"{part}_y.bin").write_bytes(bytes(1 + i % 10 for i in range(begin, begin + count)))
    return place


def test_pixels_and_labels(tmp_path: Path) -> None:
    place = write(tmp_path)
    for data_dir in (tmp_path, place):
        data = load("stl10", data_dir=data_dir)
        assert (data.image, len(data.train), len(data.test), data.padding) == ((3, 96, 96), 9, 5, 12)
        assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), PIXELS[:9])
        assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), PIXELS[9:])
        assert data.test.labels.tolist() == [9, 0, 1, 2, 3]
        assert data.classes[:3] == ("airplane", "bird", "car")


def test_smaller_images_are_pillows(tmp_path: Path) -> None:
    write(tmp_path)
    data = load("stl10", data_dir=tmp_path, size=32)
    assert (data.image, data.padding) == ((3, 32, 32), 4)
    expected = np.asarray(Image.fromarray(PIXELS[3]).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(data.train.images[3].permute(1, 2, 0).numpy(), expected)


def refused(root: Path, match: str, size: int | None = None) -> None:
    with pytest.raises(InputError, match=match) as error:
        load("stl10", data_dir=root, size=size)
    assert "\n" not in str(error.value)


def test_wrong_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "stl10_binary.tar.gz")
    place = write(tmp_path)
    refused(tmp_path, "size 0", size=0)
    whole = (place / "train_X.bin").read_bytes()
    for content, word in (
        (whole[:-1], "truncated"),
        (b"", "truncated"),
        (whole[: 96 * 96 * 3], "9 labels for 1 image"),
    ):
        (place / "train_X.bin").write_bytes(content)
        refused(tmp_path, word)
    (place / "train_X.bin").write_bytes(whole)
    (place / "test_y.bin").write_bytes(bytes([1, 2, 3, 11, 1]))
    refused(tmp_path, "1 to 11")
    (place / "test_y.bin").unlink()
    refused(tmp_path, "test_y.bin is missing")
    monkeypatch.setattr(folder, "LARGEST", 1000)
    refused(tmp_path, "smaller size")
