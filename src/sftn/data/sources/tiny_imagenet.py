"""Tiny-ImageNet in its official layout, as a folder or as the `.zip`, which is read without unpacking."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sftn.data.dataset import Dataset, Request
from sftn.data.file_split import Names
from sftn.data.sources.cifar import roots
from sftn.data.sources.from_files import gather
from sftn.data.splits import TRAIN, VALIDATION, understood
from sftn.errors import InputError

logger = logging.getLogger(__name__)

SIZE = 64
NAME = "tiny-imagenet-200"
ADDRESS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
LARGEST = 16 * 2**20
"""Limit in bytes on one file of the data set; no image or list comes near it."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""Exceptions that damaged, encrypted or unusually packed archives raise."""
_IMAGE = re.compile(r"train/(?P<wnid>n\d+)/images/[^/]+\.jpe?g", re.IGNORECASE)


class _Files:
    """Reads the files of Tiny-ImageNet, by path and by row."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._own: tuple[int, zipfile.ZipFile] | None = None
        self._opening = threading.Lock()
        self._prefix = ""
        if place.is_dir():
            found = [(Path(top, name), name) for top, _, names in os.walk(place) for name in names]
            sizes = {path.relative_to(place).as_posix(): path.lstat().st_size for path, _ in found}
        else:
            listed = [info for info in self._archive().infolist() if not info.is_dir()]
            self._prefix = next(
                (info.filename.removesuffix("wnids.txt") for info in listed if info.filename.endswith("wnids.txt")), ""
            )
            inside = [info for info in listed if info.filename.startswith(self._prefix)]
            sizes = {info.filename.removeprefix(self._prefix): info.file_size for info in inside}
        self.names = tuple(sorted(sizes))
        self.row = {name: row for row, name in enumerate(self.names)}
        self.sizes: NDArray[np.int64] = np.array([sizes[name] for name in self.names], np.int64)
        self.stamp = f"{place.resolve()} {place.stat().st_mtime_ns}"

    def __getstate__(self) -> dict[str, object]:
        """Drop the open archive and the index of paths: a worker opens it itself and uses rows only."""
        return {**vars(self), "_own": None, "_opening": None, "row": {}, "names": Names(self.names)}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._opening = threading.Lock()

    def name(self, row: int) -> str:
        """Path of a file below tiny-imagenet-200/."""
        return self.names[row]

    def open(self, row: int) -> tuple[Path, BinaryIO]:
        """Path and content of a file."""
        return self.place / self.names[row], io.BytesIO(self.read(self.names[row]))

    def read(self, name: str) -> bytes:
        """Read a whole file, up to `LARGEST` bytes whatever size it claims."""
        try:
            with (
                (self.place / name).open("rb")
                if self.place.is_dir()
                else self._archive().open(self._prefix + name) as file
            ):
                content = file.read(LARGEST + 1)
        except _BROKEN as error:
            raise _broken(self.place, error) from error
        if len(content) > LARGEST:
            raise InputError(
                f"{self.place}: {name} is larger than {LARGEST >> 20} MiB, so it is not Tiny-ImageNet: {_again()}"
            )
        return content

    def _archive(self) -> zipfile.ZipFile:
        """The archive, opened by this process, because processes that share a handle share its position."""
        with self._opening:
            if self._own is None or self._own[0] != os.getpid():
                try:
                    self._own = os.getpid(), zipfile.ZipFile(self.place)
                except _BROKEN as error:
                    raise _broken(self.place, error) from error
            return self._own[1]


def load(request: Request) -> Dataset:
    """Tiny-ImageNet: 100,000 training and 10,000 validation images, 3×64×64, 200 classes.

    The folder tiny-imagenet-200 or its .zip is searched in `data_dir` and the usual places; `data_dir` may also be the
    folder or the .zip itself, whatever its name. A subset of the images works too. Classes are in the order of
    wnids.txt, images in that of their names; the validation images are the test split. For sizes other than 64 the
    images are resized bilinearly; transfer is tested at size 32. Images that exceed the memory limit are streamed.

    Raises:
        InputError: the files are missing, truncated or wrong, or an image is unreadable or too large.
    """
    files = _Files(_find(request.data_dir))
    wnids = tuple(_text(files, "wnids.txt").split())
    if len(set(wnids)) != len(wnids) or len(wnids) < 2:
        raise InputError(f"{files.place}: wnids.txt does not list each class once: {_again()}")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    train, test = _training(files, labels), _validation(files, labels)
    if not train or not test:
        raise InputError(f"{files.place} has no images in {'val' if train else 'train'}/: {_again()}")
    rows = tuple([(files.row[name], label) for name, label in part] for part in (train, test))
    used = {name for name, _ in (*train, *test)}
    inside = [name for name in files.names if name.startswith(("train/", "val/")) and not name.endswith(".txt")]
    strange = [name for name in inside if name not in used]
    if strange:
        logger.warning(
            f"tiny-imagenet: left out: {len(strange):,} of the files in train/ and val/, such as {strange[0]}"
        )
    names = _classes(files, wnids)
    logger.info(
        understood(
            "tiny-imagenet", {TRAIN: len(train), VALIDATION: len(test)}, (len(train), len(test)), VALIDATION, names
        )
    )
    size = SIZE if request.size is None else request.size
    return gather("tiny-imagenet", files, (rows[0], rows[1]), names, request, size)


def _again() -> str:
    return f"download {ADDRESS} again"


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
        f"tiny-imagenet is missing: neither {NAME}/ nor {NAME}.zip is in {', '.join(map(str, places))}; download "
        f"{ADDRESS} and give its folder with --data-dir"
    )


def _broken(place: Path, error: Exception) -> InputError:
    return InputError(f"{place} is truncated or cannot be read ({error}): {_again()}")


def _text(files: _Files, name: str) -> str:
    if name not in files.names:
        raise InputError(f"{files.place} lacks {name}: {_again()}")
    try:
        return files.read(name).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{files.place}: {name} is not text: {_again()}") from error


def _training(files: _Files, labels: dict[str, int]) -> list[tuple[str, int]]:
    found = [(name, match["wnid"]) for name in files.names if (match := _IMAGE.fullmatch(name))]
    for name, wnid in found:
        if wnid not in labels:
            raise InputError(f"{files.place}: {name} is of a class that wnids.txt does not name: {_again()}")
    return sorted(((name, labels[wnid]) for name, wnid in found), key=lambda entry: (entry[1], entry[0]))


def _validation(files: _Files, labels: dict[str, int]) -> list[tuple[str, int]]:
    """Validation images that exist, with their labels from val_annotations.txt."""
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
    """First name of each class in words.txt, followed by its id if two share it; the id alone if there is none."""
    named: dict[str, str] = {}
    if "words.txt" in files.names:
        for line in _text(files, "words.txt").splitlines():
            wnid, _, words = line.partition("\t")
            named[wnid] = words.split(",")[0].strip()
    names = [named.get(wnid) or wnid for wnid in wnids]
    shared = Counter(names)
    return tuple(name if shared[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids))
