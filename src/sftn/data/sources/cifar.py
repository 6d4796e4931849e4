"""CIFAR-10 and CIFAR-100 in their official Python layout, as a folder or as the `.tar.gz` (Krizhevsky, 2009)."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import pickle
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch

from sftn.data.dataset import Dataset, Request, Split
from sftn.errors import InputError
from sftn.storage.safe_pickle import Array, unpickle

LARGEST = 256 * 2**20
"""Limit in bytes; all files of a data set together have 187 million."""
MEMBERS = 1000
"""Limit on an archive's members; the official ones have fewer than ten."""
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)

Files: TypeAlias = dict[str, Callable[[], BinaryIO]]
"""Functions that open the layout's files, by name."""


@dataclass(frozen=True)
class Layout:
    """The differences between the two data sets."""

    name: str
    folder: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str
    classes: int
    address: str = "https://www.cs.toronto.edu/~kriz/"


CIFAR10 = Layout(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
    classes=10,
)
CIFAR100 = Layout(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
    classes=100,
)


def cifar10(request: Request) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images, 3×32×32, 10 classes."""
    return load(CIFAR10, request)


def cifar100(request: Request) -> Dataset:
    """CIFAR-100 with its fine labels: 50,000 training and 10,000 test images, 3×32×32, 100 classes."""
    return load(CIFAR100, request)


def load(layout: Layout, request: Request) -> Dataset:
    """Find the files in `roots`, download them if allowed, and read them without executing their pickles.

    Raises:
        InputError: the files are missing, truncated, wrong, contain code, or cannot be downloaded.
    """
    if request.size not in (None, 32):
        raise InputError(f"{layout.name} has images of 32×32: leave out the size {request.size}")
    found = _find(layout, request.data_dir)
    if found is None and request.download:
        found = _download(layout, request.data_dir or _user_root() or Path("~/.cache/sftn").expanduser())
    if found is None:
        looked = ", ".join(str(root) for root in roots(request.data_dir))
        raise InputError(
            f"{layout.name} is missing: neither {layout.folder}/ nor {layout.archive} is in {looked}; "
            f"download {layout.address}{layout.archive}, give its folder with --data-dir, or use --download"
        )
    files = _unpacked(found, layout) if found.is_dir() else _packed(found, layout)
    train = _split(files, layout.train, found, layout)
    test = _split(files, (layout.test,), found, layout)
    return Dataset(layout.name, train, test, _classes(files, found, layout))


def roots(data_dir: Path | None) -> list[Path]:
    """Folders that are searched, in order: `data_dir`, $SFTN_DATA, then the usual places, including torchvision's."""
    torch_home = os.environ.get("TORCH_HOME") or "~/.cache/torch"
    usual = ["data", "~/.cache/sftn", "~/data", "datasets", "~/datasets", f"{torch_home}/datasets/vision"]
    first = [root for root in (data_dir, _user_root()) if root is not None]
    return [root.expanduser() for root in (*first, *map(Path, usual))]


def _user_root() -> Path | None:
    named = os.environ.get("SFTN_DATA")
    return Path(named).expanduser() if named else None


def _find(layout: Layout, data_dir: Path | None) -> Path | None:
    for root in roots(data_dir):
        # The user may also name the folder or the archive itself.
        if (root.name == layout.folder and root.is_dir()) or (root.name == layout.archive and root.is_file()):
            return root
        if (root / layout.folder).is_dir():
            return root / layout.folder
        if (root / layout.archive).is_file():
            return root / layout.archive
    return None


def _download(layout: Layout, root: Path) -> Path:
    """Download the archive into `root`; it gets its own name only once it is complete and its MD5 is right."""
    url, root = layout.address + layout.archive, root.expanduser()
    partial = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=f".{layout.archive}-", delete=False) as out:
            partial = Path(out.name)
            digest, size = hashlib.md5(usedforsecurity=False), 0
            with urllib.request.urlopen(url, timeout=60) as answer:
                while chunk := answer.read(2**20):
                    size += len(chunk)
                    digest.update(chunk)
                    out.write(chunk)
                    if size > LARGEST:
                        raise InputError(f"{url} is larger than {LARGEST >> 20} MiB: it is not {layout.name}")
        if digest.hexdigest() != layout.md5:
            raise InputError(f"{url} came with MD5 {digest.hexdigest()} instead of {layout.md5}: try again")
        partial.chmod(0o644)
        os.replace(partial, root / layout.archive)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{url} could not be downloaded into {root} ({error}): download it by other means") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return root / layout.archive


def _packed(archive: Path, layout: Layout) -> Files:
    """The layout's files in the archive, by name. Nothing is written to disk; links and other members are skipped."""
    remedy = f"delete it and download {layout.address}{layout.archive}"
    wanted = {f"{layout.folder}/{name}": name for name in (*layout.train, layout.test, layout.meta)}
    files: Files = {}
    try:
        with gzip.open(archive) as packed:
            whole = packed.read(LARGEST + 1)
        if len(whole) > LARGEST:
            raise InputError(f"{archive} holds more than {LARGEST >> 20} MiB, so it is not {layout.name}: {remedy}")
        for member, begin in _members(whole):
            name = wanted.get(member.name.removeprefix("./"))
            if name is not None and member.isreg() and not member.issparse():
                files[name] = partial(io.BytesIO, whole[begin : begin + member.size])
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(f"{archive} is truncated or not a .tar.gz ({error}): {remedy}") from error
    return files


def _members(whole: bytes) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Headers of a tar and the offsets of their contents.

    Not `tarfile.open`, which follows forged sizes backwards in an endless loop. Names of more than 100 bytes and other
    extended headers are ignored; the data sets do not need them.
    """
    block, begin = tarfile.BLOCKSIZE, 0
    for count in range(MEMBERS + 1):
        header = whole[begin : begin + block]
        if count and not any(header):
            return
        member, begin = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape"), begin + block
        held = member.size if member.type not in _WITHOUT_CONTENT else 0
        if not 0 <= held <= len(whole) - begin:
            raise tarfile.ReadError("a member's size is not that of its content")
        yield member, begin
        begin += -(-held // block) * block
    raise tarfile.ReadError(f"it has more than {MEMBERS} members")


def _unpacked(folder: Path, layout: Layout) -> Files:
    """The layout's files that exist in the folder, by name."""
    files: Files = {}
    for name in (*layout.train, layout.test, layout.meta):
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} is larger than {LARGEST >> 20} MiB: it is not a file of {layout.name}")
        files[name] = partial(_opened, path)
    return files


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _entry(files: Files, name: str, found: Path, layout: Layout) -> dict[str, Any]:
    """Read one pickled dict, with its keys as text, and drop the file."""
    if name not in files:
        raise InputError(f"{found} lacks the file {name}: download {layout.address}{layout.archive} again")
    try:
        with files.pop(name)() as file:
            entry = unpickle(file)
    except OSError as error:
        raise InputError(f"{found / name} cannot be read ({error.strerror}): make it readable") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{found}: {name} is not a file of {layout.name}: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"{found}: {name} is not a file of {layout.name}: it holds no dict")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entry.items()}


def _split(files: Files, names: tuple[str, ...], found: Path, layout: Layout) -> Split:
    """Concatenate the images of some of the files."""
    pixels, labels = [], []
    for name in names:
        entry = _entry(files, name, found, layout)
        where = f"{found}: {name} is not a file of {layout.name}:"
        data, own = entry.get("data"), entry.get(layout.labels)
        data = data.value if isinstance(data, Array) else data
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise InputError(f"{where} its data are not (N, 3072) bytes")
        own = own.value.tolist() if isinstance(own, Array) and own.value.shape == data.shape[:1] else own
        if not isinstance(own, list) or not all(type(label) is int for label in own):
            raise InputError(f"{where} it has no list of {layout.labels}")
        if not own or len(own) != len(data):
            raise InputError(f"{where} it has {len(data)} images and {len(own)} labels")
        if not 0 <= min(own) <= max(own) < layout.classes:
            raise InputError(f"{where} its labels are {min(own)} to {max(own)} instead of 0 to {layout.classes - 1}")
        pixels.append(data)
        labels += own
    # Concatenating copies, which makes the tensor writable; a single file's array already is, unless it is tiny.
    whole = pixels[0] if len(pixels) == 1 and pixels[0].flags.writeable else np.concatenate(pixels)
    return Split(torch.from_numpy(whole).view(-1, 3, 32, 32), torch.tensor(labels))


def _classes(files: Files, found: Path, layout: Layout) -> tuple[str, ...]:
    names = _entry(files, layout.meta, found, layout).get(layout.names)
    if isinstance(names, list) and len(names) == layout.classes:
        texts = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]
        if all(isinstance(text, str) for text in texts):
            return tuple(texts)
    raise InputError(
        f"{found}: {layout.meta} is not a file of {layout.name}: it does not name {layout.classes} classes"
    )
