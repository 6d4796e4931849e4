"""Corrupted test images in files: the official ones, or generated ones that are kept.

The official CIFAR-10-C and CIFAR-100-C files are read in place; if they are missing, and for any other data set, the
corrupted images are generated from the test split and kept in the official layout: CORRUPTION.npy, (5·N, H, W, C) uint8
with consecutive severities, and labels.npy.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sftn
from sftn.analysis.corruptions import CORRUPTIONS, SEVERITIES, VERSION, check, corrupt
from sftn.data.dataset import Dataset, Split
from sftn.data.sources.cifar import roots
from sftn.errors import InputError
from sftn.storage.atomic import make_folder
from sftn.storage.json_files import read_json, write_json

logger = logging.getLogger(__name__)

OFFICIAL = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
"""Folders of the official files (zenodo.org/records/2535967 and 3555552)."""
BLOCK = 250
"""Images corrupted at once; affects speed only."""


@dataclass(frozen=True)
class Corrupted:
    """A folder of corrupted images of a test split."""

    folder: Path
    test: Split
    generated: bool
    """Generated here, so results are not exactly comparable with those on the official files."""

    def split(self, name: str, severity: int) -> Split:
        """The test images under one corruption.

        Raises:
            InputError: the corruption is unknown, or its file is missing, truncated or belongs to other images.
        """
        check(name, severity)
        per = self._per_severity()
        images = _array(self.folder / f"{name}.npy")
        channels, height, width = self.test.images.shape[1:]
        wanted = (per * len(SEVERITIES), height, width, channels)
        if images.dtype != np.uint8 or images.shape != wanted:
            raise InputError(
                f"{self.folder / name}.npy holds {images.dtype} of shape {images.shape}, not uint8 of {wanted}: "
                "it belongs to other images"
            )
        begin = (severity - 1) * per
        part = np.array(images[begin : begin + len(self.test)])
        return Split(torch.from_numpy(part).permute(0, 3, 1, 2), self.test.labels)

    def _per_severity(self) -> int:
        path = self.folder / "labels.npy"
        labels, own = _array(path), self.test.labels.numpy()
        per = len(labels) // len(SEVERITIES) if labels.ndim == 1 else 0
        if labels.dtype.kind not in "iu" or per < len(own) or len(labels) % len(SEVERITIES):
            raise InputError(f"{path} is not a list of 5 × {len(own)} labels: it belongs to other images")
        for begin in range(0, len(labels), per):
            if not np.array_equal(labels[begin : begin + len(own)], own):
                raise InputError(f"{path} does not have the labels of the test images: it belongs to other images")
        return per


def find(dataset: Dataset, data_dir: Path | None) -> Corrupted | None:
    """Find the official files of a data set in `data_dir` or one of the usual places."""
    folder = OFFICIAL.get(dataset.name)
    for root in roots(data_dir) if folder else ():
        place = root if root.name == folder else root / str(folder)
        if (place / "labels.npy").is_file():
            return Corrupted(place, dataset.test, generated=(place / "generated.json").exists())
    return None


def generate(
    dataset: Dataset,
    root: Path,
    names: Sequence[str] = tuple(CORRUPTIONS),
    *,
    seed: int = 0,
    threads: int | None = None,
) -> Corrupted:
    """Generate the missing files of a data set's corrupted test images.

    The folder in `root` is named after the images, the seed and the version of the corruptions, and marked by a
    generated.json. Each file is written completely or not at all. CIFAR's 19 files have 154 MB each.

    Raises:
        InputError: a name is unknown, or the folder cannot be written.
    """
    for name in names:
        check(name)
    test = dataset.test
    record = {
        "generated": True,
        "note": "made by sftn from the test images with CIFAR-C's constants; not the official files; frost is grown",
        "data": dataset.name,
        "images": len(test),
        "fingerprint": _fingerprint(test),
        "seed": seed,
        "version": VERSION,
    }
    digest = hashlib.sha256(repr(sorted(record.items())).encode()).hexdigest()[:8]
    folder = root / f"{OFFICIAL.get(dataset.name, dataset.name.replace('/', '-') + '-C')}-generated-{digest}"
    make_folder(folder)
    if not (folder / "generated.json").exists():
        write_json(folder / "generated.json", record | {"sftn": sftn.__version__})
    elif {key: read_json(folder / "generated.json").get(key) for key in record} != record:
        raise InputError(f"{folder} holds other corrupted images: choose another --out")
    if not (folder / "labels.npy").exists():
        _save(folder / "labels.npy", [test.labels.numpy().astype(np.int64)] * len(SEVERITIES))
    images = np.ascontiguousarray(test.images.permute(0, 2, 3, 1).numpy())
    missing = [name for name in names if not (folder / f"{name}.npy").exists()]
    for number, name in enumerate(missing, 1):
        logger.info("corrupting %s test images: %s (%d of %d)", f"{len(test):,}", name, number, len(missing))
        _save(folder / f"{name}.npy", [_corrupted(images, name, s, seed, threads) for s in SEVERITIES])
    return Corrupted(folder, test, generated=True)


def _corrupted(
    images: NDArray[np.uint8], name: str, severity: int, seed: int, threads: int | None
) -> NDArray[np.uint8]:
    """Corrupt the images at one severity, in blocks on all cores; numpy and scipy release the interpreter lock."""

    def block(first: int) -> NDArray[np.uint8]:
        return corrupt(images[first : first + BLOCK], name, severity, first=first, seed=seed)

    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(block, range(0, len(images), BLOCK))))


def _save(path: Path, blocks: Sequence[NDArray[Any]]) -> None:
    """Write consecutive arrays as one .npy file, completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    first = blocks[0]
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    try:
        with open(temporary, "wb") as file:
            shape = (sum(map(len, blocks)), *first.shape[1:])
            np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free space there or choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)


def _array(path: Path) -> NDArray[Any]:
    """Memory-map a .npy file; nothing in it is executed."""
    if not path.is_file():
        raise InputError(f"{path} is missing: put it there, or give another folder with --corrupted")
    try:
        # Not `np.load`, which also reads archives and pickles, and crashes the process on forged shapes.
        with open(path, "rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("an unsupported version of the format")
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
        held = path.stat().st_size - begin
        if columns_first or dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != held:
            raise ValueError("not numbers, or not as many as the header says")
        return np.memmap(path, dtype, "r", begin, shape)
    except Exception as error:  # a forged header can raise anything
        reason = f"{type(error).__name__}: {error}"[:80]
        raise InputError(f"{path} is truncated or not a .npy file ({reason}): copy it again") from error


def _fingerprint(split: Split) -> str:
    digest = hashlib.sha256(repr(tuple(split.images.shape)).encode())
    for tensor in (split.images, split.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
