"""STL-10 in its official binary files (Coates, Ng and Lee, AISTATS 2011)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sftn.data.dataset import Dataset, Request, Split
from sftn.data.sources.cifar import roots
from sftn.data.sources.folder import check_memory
from sftn.errors import InputError

SIDE = 96
FOLDER = "stl10_binary"
ADDRESS = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def load(request: Request) -> Dataset:
    """STL-10: 5,000 training and 8,000 test images, 3×96×96, 10 classes; the unlabelled images are left out.

    The folder stl10_binary, as unpacked from the archive, is searched in `data_dir` and the usual places. For sizes
    other than 96 the images are resized (antialiased bilinear); transfer is tested at size 32.

    Raises:
        InputError: the files are missing, truncated or wrong, or the images exceed the memory limit.
    """
    size = SIDE if request.size is None else request.size
    folder = _find(request.data_dir)
    train, test = (_split(folder, part, size) for part in ("train", "test"))
    return Dataset("stl10", train, test, CLASSES, padding=size // 8)


def _find(data_dir: Path | None) -> Path:
    places = roots(data_dir)
    for root in places:
        for folder in (root, root / FOLDER):
            if (folder / "train_X.bin").is_file():
                return folder
    raise InputError(
        f"stl10 is missing: no {FOLDER}/train_X.bin in {', '.join(map(str, places))}; download {ADDRESS}, unpack it, "
        "and give the folder with --data-dir"
    )


def _split(folder: Path, part: str, size: int) -> Split:
    images, labels = folder / f"{part}_X.bin", folder / f"{part}_y.bin"
    length = 3 * SIDE * SIDE
    count, rest = divmod(_bytes(images), length)
    if rest or not count:
        raise InputError(f"{images} is truncated: it is not a whole number of 3×96×96 images; unpack the archive again")
    if _bytes(labels) != count:
        raise InputError(f"{labels} has {_bytes(labels)} labels for {count} images: unpack the archive again")
    check_memory(folder, count, size)
    # Each channel is stored column by column.
    pixels = np.memmap(images, np.uint8, "r", shape=(count, 3, SIDE, SIDE)).transpose(0, 1, 3, 2)
    classes = np.fromfile(labels, np.uint8).astype(np.int64) - 1
    if not 0 <= classes.min() <= classes.max() < len(CLASSES):
        raise InputError(f"{labels} has labels from {classes.min() + 1} to {classes.max() + 1} instead of 1 to 10")
    return Split(torch.from_numpy(_resized(pixels, size)), torch.from_numpy(classes))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} is missing: unpack the archive again") from error


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize (N, 3, 96, 96) to (N, 3, size, size), contiguous."""
    if size == SIDE:
        return np.ascontiguousarray(pixels)
    from PIL import Image

    made = np.empty((len(pixels), 3, size, size), np.uint8)

    def fill(i: int) -> None:
        image = Image.fromarray(np.ascontiguousarray(pixels[i].transpose(1, 2, 0)))
        made[i] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(len(pixels))))
    return made
