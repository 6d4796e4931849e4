"""Your own images, one folder per class."""

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
"""Limit in bytes on the decoded pixels of a source that cannot be streamed."""
TESTS = ("test", "val", "validation")

Listing = dict[str, list[str]]
"""Image files of each class, as paths within the root; classes and files are sorted by name."""


def load(request: Request) -> Dataset:
    """The images of a folder, 3×size×size, size 32 by default.

    If there is a `train/` and one of `test/`, `val/`, `validation/` (the first that exists), each holds one folder per
    class. Otherwise the folder itself does, and a fifth of each class, at least one image, is held out for testing:
    those whose path within the folder has the smallest hash, so that the split is the same everywhere. Classes are
    sorted by name, and so are the images of a class, at any depth. Files without an image's suffix, hidden files and
    links to folders inside a class are ignored.

    Images whose pixels exceed the memory limit are streamed, see `sftn.data.sources.from_files.gather`.

    Raises:
        InputError: the folder or its images are missing, there is only one class, a class has no image (or only one
            where it must be split) or no training images, or an image is unreadable or too large.
    """
    root = _root(request)
    test = next((name for name in TESTS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test is not None:
        parts = listed(root, "train"), listed(root, test)
        compare(root, *parts, test)
    else:
        parts = parted(listed(root), str(root))
    if len(parts[0]) < 2:
        raise InputError(f"{root} has images of {len(parts[0])} class: give at least 2 folders, one per class")
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
    """Make a data set of listed training and test files below a folder. See `gather`."""
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
    """Reads image files below a folder."""

    root: Path
    names: Names
    sizes: NDArray[np.int64]
    stamp: str

    @staticmethod
    def of(root: Path, names: list[str]) -> Paths:
        """Stat each file."""
        sizes, newest = np.empty(len(names), np.int64), 0
        for i, name in enumerate(names):
            try:
                seen = os.stat(root / name)
            except OSError as error:
                raise InputError(f"{root / name} cannot be read ({error.strerror}): repair or remove it") from error
            sizes[i], newest = seen.st_size, max(newest, seen.st_mtime_ns)
        return Paths(root, Names(names), sizes, f"{root.resolve()} {newest}")

    def name(self, row: int) -> str:
        """Path of an image within the folder."""
        return self.names[row]

    def open(self, row: int) -> tuple[Path, None]:
        """Its path."""
        return self.root / self.names[row], None


def check_memory(place: Path, count: int, size: int) -> None:
    """Check that `count` images of 3×size×size fit into memory, for sources that cannot be streamed.

    Raises:
        InputError: the size is below 1, or the images exceed `LARGEST`.
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
        raise InputError("the data set folder needs a path: folder:PATH, which contains one folder per class")
    path = Path(request.path).expanduser()
    # A relative path may be relative to data_dir; an absolute one stays as it is.
    places = dict.fromkeys([path] if request.data_dir is None else [path, request.data_dir.expanduser() / path])
    for place in places:
        if place.is_dir():
            return place
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        raise InputError(f"{found} is a file, not a folder: give a folder with a folder of images for each class")
    raise InputError(f"{' or '.join(map(str, places))} is not a folder: give one with a folder for each class")


def listed(root: Path, part: str = "") -> Listing:
    """List the images of a folder that has one folder per class.

    Raises:
        InputError: it cannot be read, or it or a class is empty.
    """
    top = root / part
    try:
        folders = sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{top} cannot be read ({error.strerror}): make it readable") from error
    if not folders:
        raise InputError(f"{top} has no folders: put the images of each class into their own folder")
    files = {name: sorted(_images(root, top / name), key=_parts) for name in folders}
    for name, own in files.items():
        if not own:
            raise InputError(f"{top / name} has no images: add some or remove the folder")
    return files


def compare(root: Path, train: Listing, test: Listing, name: str) -> None:
    """Check that every test class has training images.

    Raises:
        InputError: one has none.
    """
    if strange := sorted(test.keys() - train.keys()):
        raise InputError(f"{root / name} has the class {strange[0]}, which {root / 'train'} lacks: add or remove it")


def parted(files: Listing, where: str) -> tuple[Listing, Listing]:
    """Split each class: four fifths for training, the rest for testing.

    Raises:
        InputError: a class has only one image.
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
    """Sort key by path components, so that the contents of a folder stay together."""
    return path.split("/")
