"""Anybody's own images: one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftn.data.dataset import MEMORY, Dataset, Request, held_out
from sftn.data.decoding import SUFFIXES
from sftn.data.file_split import Names
from sftn.data.sources.from_files import gather
from sftn.errors import InputError

SIZE = 32
LARGEST = MEMORY
"""Bytes of decoded pixels of a source that only fits into memory."""
TESTS = ("test", "val", "validation")

Listing = dict[str, list[str]]
"""The image files of each class by their path within the root, both in the order of their names."""


def load(request: Request) -> Dataset:
    """The images of a folder, 3×size×size, size 32 unless asked otherwise.

    With `train/` and one of `test/`, `val/`, `validation/` (the first of them that is there), each holds one folder a
    class. Otherwise the folder itself does, and of each class a fifth, at least one image, is for testing: those whose
    path within the folder has the smallest hash, so that the split is the same everywhere. The classes stand in the
    order of their names and so do the images of a class, however deep in its folder they are. Files that are no images
    by their suffix, hidden ones and links to folders inside a class are passed over.

    Images whose pixels exceed the memory that is asked for are streamed;
    `sftn.data.sources.from_files.gather` says how.

    Raises:
        InputError: the folder or its images are missing, there is one class, a class has no image (or one, where it
            must be split) or no training images, or an image is unreadable or huge.
    """
    root = _root(request)
    test = next((name for name in TESTS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test is not None:
        parts = listed(root, "train"), listed(root, test)
        compare(root, *parts, test)
    else:
        parts = parted(listed(root), str(root))
    if len(parts[0]) < 2:
        raise InputError(f"{root} has images of {len(parts[0])} class: give at least 2 folders, one a class")
    return of_paths(f"folder:{request.path}", root, parts, request, SIZE if request.size is None else request.size)


def of_paths(
    name: str,
    root: Path,
    parts: tuple[Listing, Listing],
    request: Request,
    size: int,
    *,
    streamed: bool | None = None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """A data set of image files below a folder, its training and test images listed. See `gather`."""
    classes = tuple(parts[0])
    paths = [path for part in parts for own in part.values() for path in own]
    rows = iter(range(len(paths)))
    labels = {own: label for label, own in enumerate(classes)}
    train, test = ([(next(rows), labels[own]) for own, inside in part.items() for _ in inside] for part in parts)
    return gather(
        name,
        Paths.of(root, paths),
        (train, test),
        classes,
        request,
        size,
        streamed=streamed,
        statistics=statistics,
    )


@dataclass(frozen=True)
class Paths:
    """Image files below a folder."""

    root: Path
    names: Names
    sizes: NDArray[np.int64]
    stamp: str

    @staticmethod
    def of(root: Path, names: list[str]) -> Paths:
        """Look at each file."""
        sizes, newest = np.empty(len(names), np.int64), 0
        for i, name in enumerate(names):
            try:
                seen = os.stat(root / name)
            except OSError as error:
                raise InputError(f"{root / name} cannot be read ({error.strerror}): repair or remove it") from error
            sizes[i], newest = seen.st_size, max(newest, seen.st_mtime_ns)
        return Paths(root, Names(names), sizes, f"{root.resolve()} {newest}")

    def name(self, row: int) -> str:
        """Its path within the folder."""
        return self.names[row]

    def open(self, row: int) -> tuple[Path, None]:
        """Its path."""
        return self.root / self.names[row], None


def check_memory(place: Path, count: int, size: int) -> None:
    """Check that so many images of 3×size×size may be kept in memory, where they cannot be streamed.

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


def _root(request: Request) -> Path:
    if not request.path:
        raise InputError("the data set folder needs a path: folder:PATH, with one folder a class in it")
    path = Path(request.path).expanduser()
    # A relative path may be meant within data_dir; an absolute one stays what it is.
    places = dict.fromkeys([path] if request.data_dir is None else [path, request.data_dir.expanduser() / path])
    for place in places:
        if place.is_dir():
            return place
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        raise InputError(f"{found} is a file and no folder: give a folder with a folder of images for each class")
    raise InputError(f"{' or '.join(map(str, places))} is no folder: give one with a folder for each class")


def listed(root: Path, part: str = "") -> Listing:
    """The images of a folder, or of a part of it, with one folder a class.

    Raises:
        InputError: it cannot be read, or it or a class is empty.
    """
    top = root / part
    try:
        folders = sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{top} cannot be read ({error.strerror}): make it readable") from error
    if not folders:
        raise InputError(f"{top} has no folders: put the images of each class into a folder of its own")
    files = {name: sorted(_images(root, top / name), key=_parts) for name in folders}
    for name, own in files.items():
        if not own:
            raise InputError(f"{top / name} has no images: add some or remove the folder")
    return files


def compare(root: Path, train: Listing, test: Listing, name: str) -> None:
    """Check that training knows every class that is tested.

    Raises:
        InputError: it does not.
    """
    if strange := sorted(test.keys() - train.keys()):
        raise InputError(f"{root / name} has the class {strange[0]}, which {root / 'train'} lacks: add or remove it")


def parted(files: Listing, where: str) -> tuple[Listing, Listing]:
    """Four fifths of each class for training, the rest for testing.

    Raises:
        InputError: a class has one image.
    """
    train, test = {}, {}
    for name, own in files.items():
        if len(own) < 2:
            raise InputError(f"{where}/{name} has one image: add another, so that one can be kept for testing")
        chosen = held_out(own, max(1, round(len(own) / 5)))
        train[name] = [path for i, path in enumerate(own) if i not in chosen]
        test[name] = [path for i, path in enumerate(own) if i in chosen]
    return train, test


def _images(root: Path, folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        within = Path(place).relative_to(root).as_posix()
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield f"{within}/{name}"


def _parts(path: str) -> list[str]:
    """Sorts as paths do: what lies deeper in a folder stays together."""
    return path.split("/")
