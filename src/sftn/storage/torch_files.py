"""Reads PyTorch's weight files without PyTorch's unpickler: today's zip format, and the stream format before 1.6.

Claimed sizes are compared with the file before memory is allocated for them, and pickles are read by
`sftn.storage.safe_pickle`, which can call only the functions listed below.
"""

from __future__ import annotations

import mmap
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from sftn.storage.safe_pickle import Builder, unpickle

LARGEST_PICKLE = 64 * 2**20
"""Largest pickle in a zip, in bytes; it holds names and shapes: that of 1,000 tensors has 0.2 million bytes."""
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any) -> Tensor:
    """A view of a storage that stays within it and has no more elements than it."""
    if not isinstance(storage, Tensor) or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor with an invalid storage, offset, size or stride")
    count = 1
    for n in size:
        count *= n
    if not count:
        return storage[:0]
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if len(size) != len(stride) or len(size) > 16 or max(count - 1, last) >= len(storage):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _pairs(pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict as Python 2 wrote it, with its items as arguments."""
    if not all(isinstance(key, (str, int)) for key, _ in pairs):
        raise pickle.UnpicklingError("it has a dict with invalid keys")
    return dict(pairs)


def _nothing(*_arguments: Any) -> None:
    """Replaces values that no weights need: command-line options, a NumPy number."""


_REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _pairs,
    **dict.fromkeys(_REBUILT, _tensor),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": _nothing,
    "argparse.Namespace": _nothing,  # the last checkpoint of a RepDistiller run holds its options
    "numpy.core.multiarray.scalar": _nothing,
    "numpy.dtype": _nothing,
    **{f"torch.{name}Storage": lambda *_: None for name in _STORAGES},
    **{f"torch.{str(dtype).removeprefix('torch.')}": _nothing for dtype in _STORAGES.values()},
}


def read(path: Path) -> Any:
    """Read what `torch.save` wrote: dicts, lists, text, numbers and dense tensors, on the CPU.

    Raises:
        sftn.storage.safe_pickle.Forbidden: the file tries to build or call something else. Nothing has been executed.
        ValueError, OSError, zipfile.BadZipFile, pickle.UnpicklingError: the file has another format or is damaged.
    """
    if zipfile.is_zipfile(path):
        return _zip(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _stream(mapped)


def _zip(path: Path) -> Any:
    left = path.stat().st_size
    storages: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
            raise ValueError("not an archive of PyTorch")
        root = pickles[0].filename.removesuffix("data.pkl")

        def content(info: zipfile.ZipInfo) -> bytes:
            # PyTorch never compresses, and members that overlap could multiply the file's bytes.
            nonlocal left
            left -= info.file_size
            if info.compress_type != zipfile.ZIP_STORED or left < 0:
                raise ValueError("its members are compressed or overlap")
            return archive.read(info)

        def persistent(pid: Any) -> Tensor:
            dtype, key, count = _named(pid)
            if key not in storages:
                storages[key] = _storage(content(archive.getinfo(f"{root}data/{key}")), dtype, count)
            return storages[key]

        if f"{root}byteorder" in archive.namelist() and content(archive.getinfo(f"{root}byteorder")) != b"little":
            raise ValueError("numbers in another byte order")
        return unpickle(content(pickles[0]), _BUILDERS, persistent, text=True)


def _stream(mapped: mmap.mmap) -> Any:
    """Read the stream format: three pickles of format data, one of content, one list of storages, then the storages."""
    stream = cast(BinaryIO, mapped)
    about = [unpickle(stream, text=True) for _ in range(3)]
    if about[:2] != [_MAGIC, _PROTOCOL] or not isinstance(about[2], dict) or about[2].get("little_endian") is not True:
        raise ValueError("not a file of PyTorch")
    begin, claimed = mapped.tell(), {}

    def note(pid: Any) -> Tensor:
        dtype, key, count = _named(pid)
        claimed[key] = dtype, count
        return torch.empty(0)

    # The storages follow the content that refers to them: read it once for their types, and again after loading them.
    unpickle(stream, {**_BUILDERS, **dict.fromkeys(_REBUILT, _nothing)}, note, text=True)
    storages = {}
    for key in unpickle(stream, text=True):
        dtype, count = claimed[key]
        size = count * dtype.itemsize
        if int.from_bytes(mapped.read(8), "little") != count or size > len(mapped) - mapped.tell():
            raise ValueError("a storage is shorter or longer than claimed")
        storages[key] = _storage(mapped.read(size), dtype, count)
    mapped.seek(begin)
    return unpickle(stream, _BUILDERS, lambda pid: storages[_named(pid)[1]], text=True)


def _named(pid: Any) -> tuple[torch.dtype, str, int]:
    """Element type, key and number of elements of a storage, from its persistent id."""
    word, kind, key, _device, count, *view = pid
    if word != "storage" or not isinstance(kind, Builder) or view not in ([], [None]):
        raise pickle.UnpicklingError("a storage of another kind")
    dtype = _STORAGES[kind.name.removeprefix("torch.").removesuffix("Storage")]
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise pickle.UnpicklingError("a storage with an invalid key or size")
    return dtype, key, count


def _storage(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) < count * dtype.itemsize:
        raise ValueError("a storage is shorter than claimed")
    return torch.frombuffer(bytearray(content), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
