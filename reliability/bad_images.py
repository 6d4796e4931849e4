"""Data sets: tiny valid ones in their official layouts, and known attacks on their formats."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reliability import hostile, pickles
from reliability.pictures import image_file, pictures
from reliability.reader import Bad, Reader, none
from sftn.analysis.corrupted import Corrupted
from sftn.data.dataset import Split
from sftn.data.load import load


def _batch(each: int = 3) -> dict[str, Any]:
    pixels = np.arange(each * 3072, dtype=np.uint32).astype(np.uint8).reshape(each, 3072)
    return {"data": pixels, "fine_labels": list(range(each)), "filenames": [f"{i}.png" for i in range(each)]}


def _cifar_files(protocol: int = 2) -> dict[str, bytes]:
    names = {"fine_label_names": [f"class {i}" for i in range(100)]}
    return {
        name: pickle.dumps(what, protocol) for name, what in (("train", _batch()), ("test", _batch()), ("meta", names))
    }


def _cifar_tar() -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in _cifar_files().items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def _beside_cifar(folder: Path) -> None:
    for name, content in _cifar_files().items():
        if not (folder / "cifar-100-python" / name).exists():
            (folder / "cifar-100-python" / name).write_bytes(content)


def _pickles(canary: Path) -> Bad:
    yield from pickles.armed(canary)
    yield from pickles.greedy()
    batch = _batch()
    several: tuple[Any, ...] = (
        np.array([0, 1, 2]),
        np.zeros(10**7, np.uint8),
        ["a", 1, 2],
        [0, 1],
        [0, 1, 10**30],
        None,
        {},
    )
    for labels in several:
        yield f"labels {str(labels)[:20]}", pickle.dumps({**batch, "fine_labels": labels}, 2)


def _tars(canary: Path) -> Bad:
    yield from hostile.archives(canary, _cifar_files()["train"], "cifar-100-python")
    for name, raw in pickles.greedy():
        yield name, hostile.tar((_member("cifar-100-python/train", len(raw)), raw))


def _member(name: str, size: int) -> Any:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _gz(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def bombs(canary: Path) -> Bad:
    """Hostile .tar.gz files."""
    bomb = hostile.tar((_member("cifar-100-python/train", 2**20), bytes(2**20)))
    yield "600 MB of zeros", _gz(bytes(600 * 2**20))
    yield "2,000 members one after the other", _gz(bomb[: 512 + 2**20] * 100)
    yield "zeros in 2 MB pieces", _gz(bytes(2**21)) * 400


def _stl10(folder: Path) -> None:
    for name, content in {"test_X.bin": bytes(2 * 27648), "train_y.bin": b"\1\2", "test_y.bin": b"\3\4"}.items():
        (folder / name).write_bytes(content)


def class_folders(folder: Path) -> None:
    """Write the other images of a folder with two classes."""
    for name in ("a/2.png", "b/1.png", "b/2.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(image_file("PNG"))


def _tiny_files() -> dict[str, bytes]:
    picture = image_file("JPEG", size=(64, 64))
    files = {"wnids.txt": b"n01\nn02\n", "words.txt": b"n01\tcat, puss\nn02\tdog\n"}
    files |= {f"train/{w}/images/{w}_{i}.JPEG": picture for w in ("n01", "n02") for i in range(2)}
    files |= {"val/val_annotations.txt": b"v0.JPEG\tn01\t0\n", "val/images/v0.JPEG": picture}
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


def tiny_zips(canary: Path) -> Bad:
    """Bombs, endless lists, members outside the archive, forged directories, and bad pictures inside."""
    root, files = "tiny-imagenet-200", _tiny_files()
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        for name in ("wnids.txt", "words.txt", "val/val_annotations.txt", "train/n01/images/n01_0.JPEG"):
            yield (
                f"zeros in {name}, packing {kind}",
                hostile.zipped({**files, f"{root}/{name}": bytes(100 * 2**20)}, kind),
            )
    many = b"".join(b"n%d\n" % i for i in range(10**6))
    yield (
        "a million classes",
        hostile.zipped({**files, f"{root}/wnids.txt": b"n01\nn02\n" + many}, zipfile.ZIP_DEFLATED),
    )
    lines = b"".join(b"n%d\tthe same\n" % i for i in range(5 * 10**5))
    yield "words without an end", hostile.zipped({**files, f"{root}/words.txt": lines}, zipfile.ZIP_DEFLATED)
    for name in ("../../x.JPEG", f"/{canary}", f"{root}/train/n01/images/../../../../x.JPEG"):
        yield (
            f"a member {name.replace(str(canary), 'ABSOLUTE')}",
            hostile.zipped({**files, name: files[f"{root}/val/images/v0.JPEG"]}),
        )
    valid = hostile.zipped(files)
    for at in (valid.find(b"PK\x01\x02"), valid.rfind(b"PK\x01\x02")):
        for field in (8, 10, 20, 24, 28, 42):
            yield (
                f"a forged directory at {at}+{field}",
                valid[: at + field] + b"\xfe\xff\xff\xff" + valid[at + field + 4 :],
            )
    for place, claim in ((-12, b"\xff\xff"), (-10, b"\xff\xff\xff\x7f"), (-6, b"\xff\xff\xff\x7f")):
        yield f"a forged end at {place}", valid[:place] + claim + valid[place + len(claim) :]
    for name, content in pictures(canary):
        if len(content) < 10**6:
            yield f"as a picture: {name}", hostile.zipped({**files, f"{root}/train/n01/images/n01_0.JPEG": content})


def _npy(content: np.ndarray[Any, Any]) -> bytes:
    whole = io.BytesIO()
    np.save(whole, content)
    return whole.getvalue()


def _arrays(canary: Path) -> Bad:
    def made(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
        text = header.encode() + b"\n"
        return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data

    whole = io.BytesIO()
    np.save(whole, np.array([pickles.Call(open, str(canary), "w")], object), allow_pickle=True)
    yield "objects that call", whole.getvalue()
    for name, raw in pickles.armed(canary):
        yield f"a pickle of {name}", raw
    for dtype in ("|u1", "|O", "<i8", "|V1000000000", "<U1000000000", "[('a', '|O')]", "|S0", "<M8[as]", "garbage"):
        for shape in (
            "(10, 32, 32, 3)",
            "(1000000000000000000,)",
            "(-1,)",
            "(0, 9223372036854775807)",
            "()",
            "(10, 10**9)",
        ):
            descr = dtype if dtype.startswith("[") else repr(dtype)
            yield f"{dtype} of {shape}", made(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")
    yield "a header of code", made("__import__('os').system('touch " + str(canary) + "')")
    yield "a deep header", made("(" * 9000)
    yield "a deep header of version 2", made("{'descr': " + "-" * 60000 + "1}", version=b"\x02\x00")
    yield "a header of 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'"
    yield "an archive", hostile.zipped({"a.npy": _npy(np.zeros(3))})


def _corrupted(folder: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    Corrupted(folder, Split(images, torch.tensor([0, 1])), generated=False).split("fog", 2)


def _beside_corrupted(folder: Path) -> None:
    for name, content in (("fog.npy", np.zeros((10, 8, 8, 3), np.uint8)), ("labels.npy", np.array([0, 1] * 5))):
        if not (folder / name).exists():
            np.save(folder / name, content)


def _cifar(folder: Path) -> None:
    load("cifar100", data_dir=folder)


def _packed_tars(canary: Path) -> Bad:
    return ((name, _gz(raw)) for name, raw in _tars(canary))


_KINDS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp"}
_FOG, _LABELS = np.zeros((10, 8, 8, 3), np.uint8), np.array([0, 1] * 5)
IMAGES = (
    Reader("CIFAR pickle", "cifar-100-python/train", lambda: _cifar_files()["train"], _cifar, _pickles, _beside_cifar),
    Reader("CIFAR .tar.gz", "cifar-100-python.tar.gz", lambda: _gz(_cifar_tar()), _cifar, bombs, small=False),
    Reader(
        "CIFAR tar within its .gz", "cifar-100-python.tar.gz", _cifar_tar, _cifar, _packed_tars, wrap=_gz, small=False
    ),
    Reader(
        "STL-10 images", "train_X.bin", lambda: bytes(2 * 27648), lambda f: load("stl10", data_dir=f), beside=_stl10
    ),
    Reader(".npy images (CIFAR-C)", "fog.npy", lambda: _npy(_FOG), _corrupted, _arrays, _beside_corrupted),
    Reader(".npy labels (CIFAR-C)", "labels.npy", lambda: _npy(_LABELS), _corrupted, _arrays, _beside_corrupted),
    *(
        Reader(
            f"image, {kind}",
            f"a/1.{suffix}",
            partial(image_file, kind),
            lambda folder: load(f"folder:{folder}"),
            pictures if kind == "PNG" else none,
            class_folders,
        )
        for kind, suffix in _KINDS.items()
    ),
    Reader(
        "Tiny-ImageNet zip",
        "tiny-imagenet-200.zip",
        lambda: hostile.zipped(_tiny_files()),
        lambda folder: load("tiny-imagenet", data_dir=folder),
        tiny_zips,
        small=False,
    ),
)
