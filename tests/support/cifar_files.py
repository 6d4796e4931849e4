"""Small fakes of CIFAR's official layout, in the bytes that Python 2 wrote."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from sftn.data.sources import cifar


def python2(value: Any) -> bytes:
    """The opcodes by which Python 2's cPickle and an old NumPy wrote a value, protocol 2."""
    match value:
        case bytes():
            return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"(" + b"".join(map(python2, value)) + b"l"
        case tuple():
            return b"(" + b"".join(map(python2, value)) + b"t"
        case dict():
            return b"(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"d"
        case np.ndarray():
            dtype = b"cnumpy\ndtype\n" + python2((b"u1", 0, 1)) + b"R(K\x03U\x01|NNN" + python2(-1) * 2 + b"K\x00tb"
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python2((0,)) + b"U\x01btR"
            return empty + b"(K\x01" + python2(value.shape) + dtype + b"\x89" + python2(value.tobytes()) + b"tb"
    raise TypeError(value)


def dump(value: Any) -> bytes:
    """A file that holds the value."""
    return b"\x80\x02" + python2(value) + b"."


def contents(layout: cifar.Layout, each: int = 12) -> dict[str, dict[bytes, Any]]:
    """What is in each file of a layout, by its name."""
    generator, labels = np.random.default_rng(3), layout.labels.encode()
    files: dict[str, dict[bytes, Any]] = {
        name: {
            b"data": generator.integers(0, 256, (each, 3072), dtype=np.uint8),
            labels: generator.integers(0, layout.classes, each).tolist(),
            b"filenames": [f"{i}.png".encode() for i in range(each)],
        }
        for name in (*layout.train, layout.test)
    }
    files[layout.meta] = {layout.names.encode(): [f"class {i}".encode() for i in range(layout.classes)]}
    return files


def write(root: Path, layout: cifar.Layout, **changed: bytes) -> Path:
    """The folder of a layout, of which some files hold something else."""
    folder = root / layout.folder
    folder.mkdir(parents=True)
    for name, value in contents(layout).items():
        (folder / name).write_bytes(changed.get(name, dump(value)))
    return folder


def pack(root: Path, layout: cifar.Layout) -> Path:
    """Turn the folder into the archive."""
    with tarfile.open(root / layout.archive, "w:gz") as tar:
        tar.add(root / layout.folder, layout.folder)
    for path in (root / layout.folder).iterdir():
        path.unlink()
    (root / layout.folder).rmdir()
    return root / layout.archive
