"""Tiny-ImageNet in its official layout, as a folder or as the `.zip`, which is read without being unpacked."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import torch

from sftn.data.cifar import roots
from sftn.data.dataset import Dataset, Request, Split
from sftn.data.folder import check_memory, decode
from sftn.errors import InputError

SIZE = 64
NAME = "tiny-imagenet-200"
ADDRESS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
LARGEST = 16 * 2**20
"""Bytes of one file within: no image or list comes near it."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What a damaged, encrypted or oddly packed archive raises."""
_IMAGE = re.compile(r"train/(?P<wnid>n\d+)/images/[^/]+\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True)
class _Files:
    """Where Tiny-ImageNet was found, the files in it by their path, and how to read one."""

    place: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]


def load(request: Request) -> Dataset:
    """Tiny-ImageNet: 100,000 training and 10,000 validation images, 3×64×64, 200 classes.

    The folder tiny-imagenet-200 or its .zip is looked for in `data_dir` and the usual places; `data_dir` may also be
    the folder or the .zip itself, whatever its name. Fewer images than the official ones will do. The classes stand in
    the order of wnids.txt, the images in that of their names; the validation images are the test split. Another size
    than 64 is made bilinearly; size 32 is what transfer is tested at.

    Raises:
        InputError: the files are nowhere, truncated or of something else, an image is unreadable or huge, or all of
            them exceed the memory bound.
    """
    size = SIZE if request.size is None else request.size
    with _open(_find(request.data_dir)) as files:
        wnids = tuple(_text(files, "wnids.txt").split())
        if len(set(wnids)) != len(wnids) or len(wnids) < 2:
            raise InputError(f"{files.place}: wnids.txt does not name classes, each once: {_again()}")
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        train = _training(files, labels)
        test = _validation(files, labels)
        if not train or not test:
            raise InputError(f"{files.place} has no images in {'val' if train else 'train'}/: {_again()}")
        check_memory(files.place, len(train) + len(test), size)
        return Dataset(
            "tiny-imagenet",
            _split(files, train, size),
            _split(files, test, size),
            _classes(files, wnids),
            padding=size // 8,
        )


def _again() -> str:
    return f"fetch {ADDRESS} again"


def _find(data_dir: Path | None) -> Path:
    places = roots(data_dir)
    for root in places:
        if root.is_file() and root.suffix == ".zip":
            return root
        for place in (root, root / NAME):
            if (place / "wnids.txt").is_file():
                return place
        if (root / f"{NAME}.zip").is_file():
            return root / f"{NAME}.zip"
    raise InputError(
        f"tiny-imagenet is missing: neither {NAME}/ nor {NAME}.zip is in {', '.join(map(str, places))}; fetch "
        f"{ADDRESS} and name its folder with --data-dir"
    )


@contextmanager
def _open(place: Path) -> Iterator[_Files]:
    """The files below tiny-imagenet-200/."""
    if place.is_dir():
        found = (Path(top, name).relative_to(place).as_posix() for top, _, names in os.walk(place) for name in names)
        yield _Files(place, tuple(sorted(found)), partial(_read, place, lambda name: (place / name).open("rb")))
        return
    try:
        archive = zipfile.ZipFile(place)
    except _BROKEN as error:
        raise _broken(place, error) from error
    with archive:
        listed = [name for name in archive.namelist() if not name.endswith("/")]
        prefix = next((name.removesuffix("wnids.txt") for name in listed if name.endswith("wnids.txt")), "")
        names = sorted(name.removeprefix(prefix) for name in listed if name.startswith(prefix))
        yield _Files(place, tuple(names), partial(_read, place, lambda name: archive.open(prefix + name)))


def _read(place: Path, open_one: Callable[[str], IO[bytes]], name: str) -> bytes:
    """A whole file, however large it says that it is."""
    try:
        with open_one(name) as file:
            content = file.read(LARGEST + 1)
    except _BROKEN as error:
        raise _broken(place, error) from error
    if len(content) > LARGEST:
        raise InputError(
            f"{place}: {name} is larger than {LARGEST >> 20} MiB, so it is not Tiny-ImageNet's: {_again()}"
        )
    return content


def _broken(place: Path, error: Exception) -> InputError:
    return InputError(f"{place} is truncated or cannot be read ({error}): {_again()}")


def _text(files: _Files, name: str) -> str:
    if name not in files.names:
        raise InputError(f"{files.place} lacks {name}: {_again()}")
    try:
        return files.read(name).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{files.place}: {name} is no text: {_again()}") from error


def _training(files: _Files, labels: dict[str, int]) -> list[tuple[str, int]]:
    found = [(name, match["wnid"]) for name in files.names if (match := _IMAGE.fullmatch(name))]
    for name, wnid in found:
        if wnid not in labels:
            raise InputError(f"{files.place}: {name} is of a class that wnids.txt does not name: {_again()}")
    return sorted(((name, labels[wnid]) for name, wnid in found), key=lambda entry: (entry[1], entry[0]))


def _validation(files: _Files, labels: dict[str, int]) -> list[tuple[str, int]]:
    """The validation images that are there, with the labels that val_annotations.txt gives them."""
    there, found = set(files.names), []
    for number, line in enumerate(_text(files, "val/val_annotations.txt").splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in labels:
            raise InputError(
                f"{files.place}: val_annotations.txt, line {number} names no class of wnids.txt: {_again()}"
            )
        if f"val/images/{name}" in there:
            found.append((f"val/images/{name}", labels[wnid]))
    return sorted(found)


def _classes(files: _Files, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """The first name of each class in words.txt, with its number where two share it; its number where there is none."""
    named: dict[str, str] = {}
    if "words.txt" in files.names:
        for line in _text(files, "words.txt").splitlines():
            wnid, _, words = line.partition("\t")
            named[wnid] = words.split(",")[0].strip()
    names = [named.get(wnid) or wnid for wnid in wnids]
    return tuple(name if names.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids))


def _split(files: _Files, listed: list[tuple[str, int]], size: int) -> Split:
    from PIL import Image

    images = torch.empty(len(listed), 3, size, size, dtype=torch.uint8)
    pixels = images.numpy()

    def fill(i: int) -> None:
        name = listed[i][0]
        pixels[i] = decode(files.place / name, size, io.BytesIO(files.read(name)))

    with warnings.catch_warnings():
        # Pillow only warns of an image between one and two times its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(fill, range(len(listed))):
                pass
    return Split(images, torch.tensor([label for _, label in listed]))
