"""Pickles that call what they must not, or cost far more than their size suggests."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Call:
    """An object that is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def armed(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles that create a file at `canary` if they are executed."""
    import os
    import subprocess

    import torch

    calls = {
        "os.system": Call(os.system, f"touch {canary}"),
        "os.mkdir": Call(os.mkdir, str(canary)),
        "exec": Call(exec, f"open({str(canary)!r}, 'w')"),
        "eval": Call(eval, f"open({str(canary)!r}, 'w')"),
        "open": Call(open, str(canary), "w"),
        "Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "numpy.save": Call(np.save, str(canary), np.zeros(1)),
        "torch.load": Call(torch.load, str(canary)),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }
    for name, call in calls.items():
        for protocol in (0, 2, 4):
            yield f"{name}, protocol {protocol}", pickle.dumps({"data": call}, protocol)
    yield "torch rebuilds", b"ctorch._utils\n_rebuild_wrapper_subclass\n(tR."
    yield "torch from a name", b"ctorch.storage\n_load_from_bytes\n(C\x04abcdtR."
    yield "a nested name", b"\x80\x04\x8c\x05numpy\x8c\x11testing.os.path.x\x93."
    yield "a code object", b"ctypes\nCodeType\n(tR."
    yield "an instance", b"(ios\nsystem\n."
    yield "an extension", b"\x82\x01."


def greedy() -> Iterator[tuple[str, bytes]]:
    """Pickles that claim wrong sizes, or cost far more than their size suggests."""
    huge = struct.pack("<I", 2**32 - 2)
    yield "memo of 4 billion", b"\x80\x02Nr" + struct.pack("<I", 2**31) + b"."
    yield "memo of 2 billion, as text", b"Np2000000000\n."
    yield "many memos far apart", b"".join(b"Nr" + struct.pack("<I", i * 2**20) for i in range(2000)) + b"."
    yield "LONG4 of 2 GB", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"."
    yield "text of 4 GB", b"X" + huge + b"abc."
    yield "bytes of 4 GB", b"B" + huge + b"abc."
    yield "bytes of 9 EB", b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"."
    yield "bytes of 20 GB", b"\x80\x04\x8e" + struct.pack("<Q", 20 * 2**30) + b"."
    yield "bytearray of 20 GB", b"\x80\x05\x96" + struct.pack("<Q", 20 * 2**30) + b"."
    yield "frame of 20 GB", b"\x80\x04\x95" + struct.pack("<Q", 20 * 2**30) + b"N."
    yield "a buffer from outside", b"\x80\x05\x97."
    yield "bytearray by a call", b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."
    yield "a key that takes for ever to hash", b"})" + b"q\x00h\x00\x86" * 100 + b"Ns."
    yield "a set of such keys", b"\x80\x04\x8f()" + b"q\x00h\x00\x86" * 100 + b"\x90."
    yield "a name that takes for ever to write", b"(l" + b"q\x00h\x00\x86" * 100 + b"Q."
    yield "a dtype that takes for ever to hash", b"cnumpy\ndtype\n)" + b"q\x00h\x00\x86" * 100 + b"K\x00K\x01\x87R."
    yield "a million lists", b"(" + b"]" * 10**6 + b"l."
    yield "five million dicts", b"(" + b"}" * 5_000_000 + b"t."
    yield "lists 300,000 deep", b"]" * 300_000 + b"a" * 299_999 + b"."
    yield "tuples 400,000 deep", b")" + b"\x85" * 400_000 + b"."
    yield "marks 400,000 deep", b"(" * 400_000 + b"t" * 400_000 + b"."
    yield "tuples over a tall stack", b"N" * 200_000 + b"\x85" * 200_000 + b"."
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    yield "one text as many bytes", b"(" + text + b"q\x00" + again * 4000 + b"l."
    yield "digits without an end", b"L" + b"9" * 200_000 + b"L\n."
    yield "an object array", pickle.dumps({"data": np.array([None, 3], object)}, 2)
    yield (
        "an array of 10¹⁸",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(L1000000000000000000L\nt.",
    )
    yield "nothing", b""
    yield "a stop", b"."
