"""Reads PyTorch's weight files without PyTorch's unpickler: today's zip format, and the stream format before 1.6.

Claimed sizes are compared with the file before memory is allocated for them, and pickles are read by
`sftn.storage.safe_pickle`, which can call only the functions listed below. What stands beside the tensors (options,
schedules, histories, whole modules) becomes inert placeholders.
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
from sftn.storage.stand_ins import Inert, inert

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
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.int8,  # the numbers of quantised tensors, which are left out themselves
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
    "storage.Untyped": torch.uint8,
}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any) -> Tensor | Inert:
    """A view of a storage that stays within it and has no more elements than it."""
    if isinstance(storage, Inert):  # of a type that weights do not have
        return storage
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
    return {key: value for key, value in pairs if isinstance(key, (str, int))}


def _nothing(*_arguments: Any) -> None:
    """Takes the place of a tensor in the first reading of the stream format."""


def _of_type(rebuild: Any = None, _kind: Any = None, arguments: Any = (), *_state: Any) -> Any:
    """A tensor of a subclass, or with attributes: the plain tensor."""
    return rebuild.make(*arguments) if isinstance(rebuild, Builder) else Inert()


_REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda *_: {},
    **dict.fromkeys(_REBUILT, _tensor),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": lambda sizes=(): tuple(sizes),
}
"""Everything else is a placeholder."""


def read(path: Path) -> Any:
    """Read what `torch.save` or TorchScript wrote: dicts, lists, text, numbers and dense tensors, on the CPU.

    Objects of other classes are `sftn.storage.stand_ins.Inert`, with their attributes in `held`.

    Raises:
        sftn.storage.safe_pickle.Forbidden: the file wants to run code. Nothing has been executed.
        ValueError, OSError, zipfile.BadZipFile, pickle.UnpicklingError: the file has another format or is damaged.
    """
    if zipfile.is_zipfile(path):
        return _zip(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _stream(mapped)


_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".safetensors")


def packed(path: Path) -> str:
    """What an archive around a file of weights is; empty for any other file."""
    with open(path, "rb") as file:
        begin = file.read(512)
    for magic, kind in _COMPRESSED.items():
        if begin.startswith(magic):
            return kind
    if begin[257:262] == b"ustar":
        return "tar"
    try:
        with zipfile.ZipFile(path) as archive:
            return next((name[:80] for name in archive.namelist() if name.endswith(_SUFFIXES)), "")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return ""


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

        def persistent(pid: Any) -> Any:
            named = _named(pid)
            if named is None:
                return Inert()
            dtype, key, count = named
            if key not in storages:
                storages[key] = _storage(content(archive.getinfo(f"{root}data/{key}")), dtype, count)
            return storages[key]

        if f"{root}byteorder" in archive.namelist() and content(archive.getinfo(f"{root}byteorder")) != b"little":
            raise ValueError("numbers in another byte order")
        return unpickle(content(pickles[0]), _BUILDERS, persistent, text=True, unknown=inert)


def _stream(mapped: mmap.mmap) -> Any:
    """Read the stream format: three pickles of format data, one of content, one list of storages, then the storages."""
    stream = cast(BinaryIO, mapped)
    about = [unpickle(stream, text=True) for _ in range(3)]
    if about[:2] != [_MAGIC, _PROTOCOL] or not isinstance(about[2], dict) or about[2].get("little_endian") is not True:
        raise ValueError("not a file of PyTorch")
    begin, claimed = mapped.tell(), {}

    def note(pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",):  # a class, with its source
            return pid[1]
        named = _named(pid)
        if named is None:
            raise ValueError("a storage of a type that weights do not have")  # its size is unknown
        dtype, key, count = named
        claimed[key] = dtype, count
        return storages.get(key, torch.empty(0))

    # The storages follow the content that refers to them: read it once for their types, and again after loading them.
    storages: dict[str, Tensor] = {}
    unpickle(stream, {**_BUILDERS, **dict.fromkeys(_REBUILT, _nothing)}, note, text=True, unknown=inert)
    for key in unpickle(stream, text=True):
        dtype, count = claimed[key]
        size = count * dtype.itemsize
        if int.from_bytes(mapped.read(8), "little") != count or size > len(mapped) - mapped.tell():
            raise ValueError("a storage is shorter or longer than claimed")
        storages[key] = _storage(mapped.read(size), dtype, count)
    mapped.seek(begin)
    return unpickle(stream, _BUILDERS, note, text=True, unknown=inert)


def _named(pid: Any) -> tuple[torch.dtype, str, int] | None:
    """Element type, key and number of elements of a storage, from its persistent id; None for an unknown type."""
    word, kind, key, _device, count, *view = pid
    if word != "storage" or not isinstance(kind, Builder) or view not in ([], [None]):
        raise pickle.UnpicklingError("a storage of another kind")
    dtype = _STORAGES.get(kind.name.removeprefix("torch.").removesuffix("Storage"))
    if dtype is None:
        return None
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise pickle.UnpicklingError("a storage with an invalid key or size")
    return dtype, key, count


def _storage(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) < count * dtype.itemsize:
        raise ValueError("a storage is shorter than claimed")
    return torch.frombuffer(bytearray(content), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
