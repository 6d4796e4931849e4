"""Anybody's own images: one folder a class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftn.data.dataset import Dataset, Request, Split, held_out
from sftn.errors import InputError

SIZE = 32
LARGEST = 4 * 2**30
"""Bytes of decoded pixels that are kept: all images of both splits stay in memory."""
TESTS = ("test", "val", "validation")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")


def load(request: Request) -> Dataset:
    """The images of a folder, 3×size×size, size 32 unless asked otherwise.

    With `train/` and one of `test/`, `val/`, `validation/` (the first of them that is there), each holds one folder a
    class. Otherwise the folder itself does, and of each class a fifth, at least one image, is for testing: those whose
    path within the folder has the smallest hash, so that the split is the same everywhere. The classes stand in the
    order of their names and so do the images of a class, however deep in its folder they are. Files that are no images
    by their suffix, hidden ones and links to folders inside a class are passed over.

    Raises:
        InputError: the folder or its images are missing, there is one class, a class has no image (or one, where it
            must be split) or no training images, an image is unreadable or huge, or all of them exceed 4 GiB.
    """
    root, size = _root(request), SIZE if request.size is None else request.size
    test_root = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test_root is not None:
        train, test = _files(root / "train"), _files(test_root)
        if strange := sorted(test.keys() - train.keys()):
            raise InputError(f"{test_root} has the class {strange[0]}, which {root / 'train'} lacks: add or remove it")
    else:
        train, test = _parted(_files(root), root)
    if len(train) < 2:
        raise InputError(f"{root} has images of {len(train)} class: give at least 2 folders, one a class")
    check_memory(root, sum(map(len, (*train.values(), *test.values()))), size)
    classes = tuple(train)
    return Dataset(
        name=f"folder:{request.path}",
        train=_split(train, classes, size),
        test=_split(test, classes, size),
        classes=classes,
        padding=size // 8,
    )


def check_memory(place: Path, count: int, size: int) -> None:
    """Check that so many images of 3×size×size may be kept in memory.

    Raises:
        InputError: the size is none, or they exceed `LARGEST`.
    """
    if size < 1:
        raise InputError(f"size {size}: give at least 1")
    if count * 3 * size * size > LARGEST:
        raise InputError(
            f"{place}: {count} images of {size}×{size} take more than {LARGEST >> 30} GiB of memory: "
            "choose a smaller size or fewer images"
        )


def decode(path: Path, size: int, content: BinaryIO | None = None) -> NDArray[np.uint8]:
    """(3, size, size) of one image file: turned upright, shorter side resized to `size`, centre kept; grey becomes RGB.

    Args:
        path: of the file; its name in messages.
        size: height and width.
        content: what is in the file, where it lies in an archive.

    Raises:
        InputError: it is no image of 8 bits a channel, is truncated, or has more pixels than Pillow holds for safe.
    """
    # Imported here: most data sets need no decoder.
    from PIL import Image, ImageOps

    try:
        with Image.open(path if content is None else content, formats=FORMATS) as opened:
            # A JPEG is decoded at a fraction of its size while that stays at least twice what is needed.
            opened.draft("RGB", (2 * size, 2 * size))
            if opened.mode.startswith(("I", "F")):
                raise InputError(f"{path} has more than 8 bits a channel: convert it to 8 bits")
            image = ImageOps.exif_transpose(opened).convert("RGB")
        side = min(image.size)
        left, top = ((whole - side) / 2 for whole in image.size)
        # The square first: a resized strip of 1×10⁷ pixels would fill the memory.
        square = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} is huge ({error}): make it smaller") from error
    except Exception as error:
        # Decoders fail in many ways on broken files; each of them means the same.
        raise InputError(f"{path} is no readable image ({type(error).__name__}): repair or remove it") from error
    return np.asarray(square).transpose(2, 0, 1)


def _root(request: Request) -> Path:
    if not request.path:
        raise InputError("the data set folder needs a path: folder:PATH, with one folder a class in it")
    path = Path(request.path).expanduser()
    # A relative path may be meant within data_dir; an absolute one stays what it is.
    places = dict.fromkeys([path] if request.data_dir is None else [path, request.data_dir.expanduser() / path])
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{' or '.join(map(str, places))} is no folder: give one with a folder for each class")


def _files(root: Path) -> dict[str, list[Path]]:
    """The image files of each class, both in the order of their names."""
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): make it readable") from error
    if not folders:
        raise InputError(f"{root} has no folders: put the images of each class into a folder of its own")
    files = {folder.name: sorted(_images(folder)) for folder in folders}
    for name, own in files.items():
        if not own:
            raise InputError(f"{root / name} has no images: add some or remove the folder")
    return files


def _images(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES:
                yield Path(place, name)


def _parted(files: dict[str, list[Path]], root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Four fifths of each class for training, the rest for testing."""
    train, test = {}, {}
    for name, own in files.items():
        if len(own) < 2:
            raise InputError(f"{root / name} has one image: add another, so that one can be kept for testing")
        chosen = held_out([path.relative_to(root).as_posix() for path in own], max(1, round(len(own) / 5)))
        train[name] = [path for i, path in enumerate(own) if i not in chosen]
        test[name] = [path for i, path in enumerate(own) if i in chosen]
    return train, test


def _split(files: dict[str, list[Path]], classes: tuple[str, ...], size: int) -> Split:
    from PIL import Image

    listed = [(path, label) for label, name in enumerate(classes) for path in files.get(name, ())]
    images: Tensor = torch.empty(len(listed), 3, size, size, dtype=torch.uint8)
    pixels = images.numpy()

    def fill(i: int) -> None:
        pixels[i] = decode(listed[i][0], size)

    with warnings.catch_warnings():
        # Pillow only warns of an image between one and two times its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            # The first failure, in the order of the files, cancels what has not begun.
            for _ in pool.map(fill, range(len(listed))):
                pass
    return Split(images, torch.tensor([label for _, label in listed]))
