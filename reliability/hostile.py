"""Bad inputs: random damage to files, and handmade attacks that are known for their formats."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_ABSURD = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
_WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    2**70,
    "",
    "[/x]",
    "\x1b[2J\n",
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": None},
    1.5,
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Apply one to three kinds of damage."""
    for _ in range(chance.randint(1, 3)):
        content = chance.choice(_DAMAGES)(bytearray(content), chance)
    return content


def _flip(content: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8, 64)) if content else 0):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _block(content: bytearray, chance: random.Random) -> slice:
    begin = chance.randrange(len(content) + 1)
    return slice(begin, begin + chance.choice((1, 4, 16, 200, 5000)))


def _truncate(content: bytearray, chance: random.Random) -> bytes:
    return bytes(content[: chance.randrange(len(content) + 1)])


def _double(content: bytearray, chance: random.Random) -> bytes:
    block = _block(content, chance)
    return bytes(content[: block.stop] + content[block] * chance.choice((1, 1, 40)) + content[block.stop :])


def _delete(content: bytearray, chance: random.Random) -> bytes:
    del content[_block(content, chance)]
    return bytes(content)


def _move(content: bytearray, chance: random.Random) -> bytes:
    block = _block(content, chance)
    moved = content[block]
    del content[block]
    at = chance.randrange(len(content) + 1)
    return bytes(content[:at] + moved + content[at:])


def _length(content: bytearray, chance: random.Random) -> bytes:
    """Write an absurd size where a size may be: more often near the beginning or the end."""
    width, order = chance.choice((1, 2, 4, 8)), chance.choice("<>")
    raw = struct.pack(f"{order}Q", chance.choice(_ABSURD))
    at = chance.choice(
        (chance.randrange(64), max(0, len(content) - chance.randrange(1, 64)), chance.randrange(len(content) + 1))
    )
    content[at : at + width] = raw[:width] if order == "<" else raw[-width:]
    return bytes(content)


def _digits(content: bytearray, chance: random.Random) -> bytes:
    """Replace a number that is written in digits."""
    places = [i for i, byte in enumerate(content[:20000]) if 48 <= byte < 58]
    if places:
        at = chance.choice(places)
        content[at : at + 1] = chance.choice((b"9", b"-1", b"99999999999", b"9" * 30, b"1e308", b"NaN", b"[" * 2000))
    return bytes(content)


_DAMAGES: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    _flip, _flip, _truncate, _double, _delete, _move, _length, _length, _digits,
)  # fmt: skip


def damaged_json(content: bytes, chance: random.Random) -> bytes:
    """Replace one value somewhere in a record."""
    record = json.loads(content)
    inside: Any = record
    while isinstance(inside, (dict, list)) and inside:
        key = chance.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
        if not (isinstance(inside[key], (dict, list)) and inside[key]) or chance.random() < 0.3:
            if chance.random() < 0.2:
                del inside[key]
            else:
                inside[key] = chance.choice(_WEIRD)
            break
        inside = inside[key]
    return json.dumps(record).encode()


def archives(canary: Path, payload: bytes, root: str) -> Iterator[tuple[str, bytes]]:
    """Uncompressed tars whose members have outside paths, are links, or claim wrong sizes."""
    for name in (f"../../{canary.name}", str(canary), f"{root}/../../{canary.name}", f"{root}/train"):
        for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "/etc/passwd", len(payload) if kind == b"0" else 0
            yield f"{name.replace(str(canary), 'ABSOLUTE')} of type {kind.decode()}", tar((member, payload))
    for size in (-512, -(2**40), 2**62, 8**11 - 1):
        member = tarfile.TarInfo(f"{root}/train")
        member.size = size
        yield f"a member of {size} bytes", member.tobuf(tarfile.GNU_FORMAT) + payload
    for kind in (b"x", b"g", b"L", b"K", b"S"):
        member = tarfile.TarInfo(f"{root}/train")
        member.type = kind
        for size in (-512, 512, 2**40):
            member.size = size
            buffer = member.tobuf(tarfile.GNU_FORMAT)
            yield (
                f"type {kind.decode()} of {size} bytes",
                buffer + b"99 GNU.sparse.size=9999999999999\n".ljust(512, b"\0"),
            )
        member.size = 512
        yield f"a chain of type {kind.decode()}", (member.tobuf(tarfile.GNU_FORMAT) + b"a" * 512) * 3000
    yield "100,000 empty members", tarfile.TarInfo("a").tobuf() * 100_000


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Make an uncompressed tar."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return whole.getvalue()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A zip."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return whole.getvalue()


def texts() -> Iterator[tuple[str, bytes]]:
    """Invalid or extreme JSON."""
    for opening in (b"[", b'{"a":', b'{"friendly":'):
        yield f"{opening.decode()} 200,000 deep", opening * 200_000
    yield "lists 900 deep", b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}"
    yield "a number of 10⁶ digits", b'{"seed": ' + b"9" * 10**6 + b"}"
    yield "20 MB of lists", b'{"a": [' + b"[]," * 7_000_000 + b"[]]}"
    yield "15 MB of lists", b'{"a": [' + b"[]," * 5_000_000 + b"[]]}"
    yield "NaN", b'{"format": NaN, "id": Infinity}'
    yield "binary", bytes(range(256))
    yield "lone surrogates", b'{"id": "\\ud800", "network": "\\u0000"}'
    yield "nothing", b""
    yield "a list", b"[1]"
    yield "a number", b"3"


def png(width: int, height: int, data: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """Make a PNG that claims a size, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
