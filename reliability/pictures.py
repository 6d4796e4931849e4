"""Image files, valid and hostile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reliability.hostile import png
from reliability.reader import Bad


def image_file(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Make a small picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    whole = io.BytesIO()
    image = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(pixels).convert(mode)
    )
    image.save(whole, kind, **options)
    return whole.getvalue()


def pictures(canary: Path) -> Bad:
    """Pictures with false sizes, many frames or strange modes, and files that are not pictures."""
    zeros = zlib.compress(bytes(10**7))
    for side in (12_000, 60_000, 2**31 - 1):
        for depth, color in ((8, 2), (16, 6), (1, 0), (8, 3)):
            yield f"a PNG of {side}², {depth} bits, kind {color}", png(side, side, zeros, depth, color)
    for depth, color in ((8, 2), (8, 6), (16, 0), (16, 6)):
        pixels = zlib.compress(bytes(9400 * (9400 * {0: 1, 2: 3, 6: 4}[color] * depth // 8 + 1)), 1)
        yield f"a PNG of 9,400², just small enough, {depth} bits, kind {color}", png(9400, 9400, pixels, depth, color)
    yield "a PNG of no pixels", png(0, 0, zeros)
    yield "a PNG of 10⁸ × 1", png(10**8, 1, zeros)
    text = b"zTXt" + b"a\0\0" + zlib.compress(bytes(10**8))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    yield "a PNG with 100 MB of text", png(8, 8, zlib.compress(bytes(8 * 25)))[:33] + chunk * 20
    for kind, mode in (
        ("PNG", "I;16"),
        ("TIFF", "I;16"),
        ("TIFF", "F"),
        ("TIFF", "CMYK"),
        ("JPEG", "CMYK"),
        ("PNG", "RGBA"),
        ("GIF", "P"),
    ):
        yield f"{kind} {mode}", image_file(kind, mode)
    frames = [Image.new("P", (200, 200), i) for i in range(100)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        whole = io.BytesIO()
        Image.new("RGB", (200, 200)).save(whole, kind, save_all=True, append_images=[f.convert("RGB") for f in frames])
        yield f"{kind} of 101 pictures", whole.getvalue()
    for kind, at, sizes in (("GIF", 6, b"\xff\xff\xff\xff"), ("BMP", 18, b"\xff\xff\xff\x7f\xff\xff\xff\x7f")):
        forged = bytearray(image_file(kind))
        forged[at : at + len(sizes)] = sizes
        yield f"{kind} that claims the largest size", bytes(forged)
    yield "PPM of 10¹⁸ pixels", b"P6 999999999 999999999 255\n"
    yield "PPM of a size of 10⁶ digits", b"P6 " + b"9" * 10**6 + b" 1 255\n"
    webp = bytearray(image_file("WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    yield "WEBP of 16,384²", bytes(webp)
    tiff = bytearray(image_file("TIFF"))
    for i in range(8, len(tiff) - 12, 2):
        if tiff[i : i + 2] in (b"\x00\x01", b"\x01\x01", b"\x11\x01", b"\x17\x01") and len(tiff) - i < 400:
            forged = bytearray(tiff)
            forged[i + 8 : i + 12] = b"\xff\xff\xff\x7f"
            yield f"TIFF with a forged tag at {len(tiff) - i} from its end", bytes(forged)
    yield (
        "PostScript",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(%pipe%touch " + str(canary).encode() + b") (w) file\n",
    )
    yield (
        "SVG",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>',
    )
    yield "nothing", b""
