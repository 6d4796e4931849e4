"""Which files are pictures, by suffix and content; what is left out is counted; links are followed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.data.decoding import decode, formats, suffixes
from sftn.data.image_files import LeftOut, below, direct, picture, subfolders

COLOUR = (200, 60, 30)


def paint(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), COLOUR).save(path, format=form)
    return path


def test_a_picture_of_every_kind_that_pillow_writes_is_read(tmp_path: Path) -> None:
    # Written by Pillow itself, so each suffix has the content it stands for.
    writable = {suffix: form for suffix, form in Image.registered_extensions().items() if form in Image.SAVE}
    read = 0
    for suffix in suffixes() & writable.keys():
        mode = {"MSP": "1", "XBM": "1", ".pgm": "L", ".pbm": "1", ".bw": "L"}
        own = mode.get(writable[suffix], mode.get(suffix, "RGB"))
        path = tmp_path / f"x{suffix.upper()}"
        Image.new("RGB", (16, 16), COLOUR).convert(own).save(path, format=writable[suffix])
        left = LeftOut()
        assert picture(path, left)
        pixels = decode(path, 16)
        if own == "RGB" and suffix not in (".gif", ".ico"):
            assert np.abs(pixels.astype(int) - np.array(COLOUR)[:, None, None]).max() < 12, suffix
        read += 1
    usual = (
        ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .j2k .tga .pcx .ico"
    )
    assert set(usual.split()) <= suffixes()
    assert read > 25


@pytest.mark.skipif("AVIF" not in formats() or ".avif" not in suffixes(), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    assert decode(paint(tmp_path / "x.avif", "AVIF"), 8)[0].mean() == pytest.approx(COLOUR[0], abs=6)


def test_what_runs_other_programs_or_is_no_picture_is_not_read() -> None:
    assert not suffixes() & {".eps", ".ps", ".wmf", ".emf", ".mpg", ".hdf", ".h5", ".fits", ".pfm", ".pdf", ".txt"}
    assert not {"EPS", "WMF", "MPEG"} & set(formats())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM"])
@pytest.mark.parametrize("name", ["none", "x.jpg_large", "x.heic"])
def test_a_file_of_an_unknown_suffix_is_told_by_its_content(form: str, name: str, tmp_path: Path) -> None:
    path = paint(tmp_path / name, form)
    assert picture(path)
    assert np.abs(decode(path, 16).astype(int) - np.array(COLOUR)[:, None, None]).max() < 12


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "0.png")
    paint(tmp_path / "cat" / ".0.png")
    paint(tmp_path / "cat" / ".ipynb_checkpoints" / "0.png")
    paint(tmp_path / "cat" / "raw.dng", "TIFF")
    for name in ("a.txt", "b.TXT", "clip.mp4", "Thumbs.db", "note"):
        (tmp_path / "cat" / name).write_bytes(b"P1 is not a picture")
    (tmp_path / "cat" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (tmp_path / "cat" / "BMW").write_bytes(b"BMW is a make of cars")
    left = LeftOut()
    assert below(tmp_path, "cat", left) == ["cat/0.png"]
    (known,), (warned,) = left.lines()
    assert known == "6 files that aren't pictures (2 .txt, 2 without a suffix, 1 .db, 1 .mp4), 2 hidden"
    assert "2 pictures of a kind that isn't read here" in warned
    assert "1 .heic" in warned
    assert "1 .dng" in warned
    assert LeftOut().lines() == ([], [])


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    paint(tmp_path / "store" / "deep" / "1.png")
    paint(tmp_path / "set" / "dog" / "b" / "0.png")
    dog = tmp_path / "set" / "dog"
    (dog / "a").symlink_to("b")  # read already, under its own name
    (dog / "more").symlink_to("../../store")
    (dog / "again").symlink_to("../../store")
    (dog / "self").symlink_to(".")
    (dog / "up").symlink_to("..")
    (tmp_path / "store" / "back").symlink_to("../set/dog")
    left = LeftOut()
    assert below(tmp_path / "set", "dog", left) == ["dog/again/deep/1.png", "dog/b/0.png"]
    assert left.links == 5


def test_folders_of_systems_and_archives_hold_no_images(tmp_path: Path) -> None:
    for name in ("cat", "__MACOSX", "@eaDir", ".cache"):
        (tmp_path / name).mkdir()
    paint(tmp_path / "x.png")
    assert subfolders(tmp_path) == ["cat"]
    assert direct(tmp_path) == ["x.png"]
