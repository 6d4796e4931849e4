"""Weights and checkpoints: valid ones, and known attacks on their formats."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors

from reliability import hostile, pickles
from reliability.reader import Bad, Reader
from sftn.networks import build
from sftn.networks.weights import load_weights, read_metadata
from sftn.runs.trained import Trained
from sftn.storage.tensor_files import load_tensors, save_tensors


def _network() -> Any:
    torch.manual_seed(0)
    return build("wrn_10_1", classes=3)


def _load(name: str, folder: Path) -> None:
    read_metadata(folder / name)
    load_weights(_network(), folder / name)


def _look(folder: Path) -> None:
    Trained.of(str(folder / "w.safetensors"), "wrn_10_1").network_alone((32, 32))


def safetensors_file() -> bytes:
    """Make a network's weights in our format."""
    return safetensors.save(_network().state_dict(), {"sftn": json.dumps({"network": "wrn_10_1", "classes": "3"})})


def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_tensors(Path(folder, "c"), {"a": torch.arange(9.0)}, {"position": {"phase": "train"}, "history": []})
        return Path(folder, "c").read_bytes()


def torch_file(new: bool) -> bytes:
    """Make the weights in PyTorch's format, current or before 1.6."""
    whole = io.BytesIO()
    state = {"model": _network().state_dict(), "epoch": 240, "best_acc": torch.tensor(70.0)}
    torch.save(state, whole, _use_new_zipfile_serialization=new)
    return whole.getvalue()


def _headers(canary: Path) -> Bad:
    def made(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text + data

    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for size in (2**63, 2**40, 10**8, 10**8 + 1, 2**64 - 1):
        yield f"a header of {size} bytes", made(b"{}", size=size)
    yield "a header of 60 MB", made(b"{" + b'"a":{},' * 8_000_000 + b"}")
    yield "a deep header", made(b'{"a":' * 100_000)
    yield "overlapping tensors", made({str(i): one for i in range(1000)}, bytes(16))
    yield "a tensor of 4 TB", made({"a": {**one, "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}, bytes(16))
    yield "an endless tensor", made({"a": {**one, "shape": [2**62, 4], "data_offsets": [0, 16]}}, bytes(16))
    yield "an empty tensor of 10⁹ rows", made({"head.weight": {**one, "shape": [10**9, 0], "data_offsets": [0, 0]}})
    yield "negative offsets", made({"a": {**one, "data_offsets": [-16, 0]}}, bytes(16))
    yield "an unknown type", made({"a": {**one, "dtype": "F4", "data_offsets": [0, 2]}}, bytes(2))
    yield "a name with control sequences", made({"\x1b[2J\nx" * 9000: one}, bytes(16))
    for classes in ("99999999999", "²", "-1", "1e9"):
        about = {"__metadata__": {"sftn": json.dumps({"classes": classes, "network": "wrn_10_1"})}}
        yield f"{classes} classes", made({**about, "a": one}, bytes(16))
    deep = {"__metadata__": {"sftn": "[" * 100_000}}
    yield "deep metadata", made({**deep, "a": one}, bytes(16))


def _checkpoints(canary: Path) -> Bad:
    yield from _headers(canary)
    for record in ("[" * 100_000, "{}", "[]", '{"position": 3}'):
        seal = hashlib.sha256(record.encode()).hexdigest()
        yield f"the record {record[:9]}", safetensors.save({}, {"record": record, "sha256": seal})


def zip_of(raw: bytes) -> bytes:
    """Make PyTorch's zip with another pickle inside."""
    with zipfile.ZipFile(io.BytesIO(torch_file(True))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return hostile.zipped({name: raw if name.endswith("data.pkl") else body for name, body in members.items()})


def _pickle_of_zip() -> bytes:
    with zipfile.ZipFile(io.BytesIO(torch_file(True))) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _rebuilt(size: bytes, stride: bytes, offset: bytes = b"K\x00", count: bytes = b"K\x04") -> bytes:
    """Make a pickle of one tensor with forged parts on a storage of 4 numbers."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQ"
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + size
        + stride
        + rest
        + b"tRs."
    )


def _claims() -> Bad:
    big = b"\x8a\x08" + struct.pack("<q", 2**60)
    yield "a tensor of 10¹⁸ by stride 0", _rebuilt(big + b"\x85", b"K\x00\x85")
    yield "a tensor beyond its storage", _rebuilt(b"K\x04\x85", b"K\x01\x85", b"K\x04")
    yield "a negative offset", _rebuilt(b"K\x04\x85", b"K\x01\x85", b"J\xff\xff\xff\xff")
    yield "a negative stride", _rebuilt(b"K\x04\x85", b"J\xff\xff\xff\xff\x85")
    yield "a storage of 10¹⁸", _rebuilt(b"K\x04\x85", b"K\x01\x85", count=big)
    yield "a negative size", _rebuilt(b"J\xff\xff\xff\xff\x85", b"K\x01\x85")
    yield "a size of text", _rebuilt(b"X\x01\x00\x00\x00a\x85", b"K\x01\x85")


def _zips(canary: Path) -> Bad:
    for make in (pickles.armed(canary), pickles.greedy(), _claims()):
        for name, raw in make:
            yield name, zip_of(raw)
    bomb = {"archive/data.pkl": _rebuilt(b"K\x04\x85", b"K\x01\x85"), "archive/data/0": bytes(300 * 2**20)}
    yield "compressed zeros", hostile.zipped(bomb, zipfile.ZIP_DEFLATED)
    yield "a compressed pickle", hostile.zipped({"archive/data.pkl": b"N" * (300 * 2**20)}, zipfile.ZIP_DEFLATED)
    valid = bytearray(torch_file(True))
    for at in (valid.find(b"PK\x01\x02"), valid.rfind(b"PK\x01\x02")):
        for field in (20, 24, 42):
            forged = bytearray(valid)
            forged[at + field : at + field + 4] = b"\xfe\xff\xff\xff"
            yield f"a directory that claims 4 GB at {at}+{field}", bytes(forged)
    yield "a TorchScript", hostile.zipped({"a/constants.pkl": b"N.", "a/data.pkl": b"N.", "a/code/x.py": b"boom()"})
    yield "two pickles", hostile.zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."})
    yield "names that lead out", hostile.zipped({"../../data.pkl": b"N.", str(canary): b"x"})


def _streams(canary: Path) -> Bad:
    valid = torch_file(False)
    about = valid[: valid.find(b"}q\x00", valid.find(b"little_endian") + 13)]
    for make in (pickles.armed(canary), pickles.greedy(), _claims()):
        for name, raw in make:
            yield f"{name}, alone", raw
            yield name, about + raw + b"\x80\x02]X\x01\x00\x00\x000a." + struct.pack("<Q", 4) + bytes(16)
    for claim in (2**62, 2**40, 2**31):
        yield (
            f"a storage of {claim}",
            about
            + _rebuilt(b"K\x04\x85", b"K\x01\x85", count=b"\x8a\x08" + struct.pack("<q", claim))
            + (b"\x80\x02]X\x01\x00\x00\x000a." + struct.pack("<Q", claim) + bytes(16)),
        )
    for name, raw in hostile.archives(canary, valid, "storages"):
        yield f"a tar with {name}", raw


WEIGHTS = (
    Reader("weights, safetensors", "w.safetensors", safetensors_file, partial(_load, "w.safetensors"), _headers),
    Reader("weights, looked at alone", "w.safetensors", safetensors_file, _look, _headers),
    Reader("weights, PyTorch zip", "w.pth", partial(torch_file, True), partial(_load, "w.pth"), _zips, small=False),
    Reader("weights, the pickle in that zip", "w.pth", _pickle_of_zip, partial(_load, "w.pth"), wrap=zip_of),
    Reader("weights, PyTorch before 1.6", "w.pth", partial(torch_file, False), partial(_load, "w.pth"), _streams),
    Reader("checkpoint", "c.safetensors", _checkpoint, lambda f: load_tensors(f / "c.safetensors"), _checkpoints),
)
