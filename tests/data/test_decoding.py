"""What becomes of an image file: every kind of it, its centre, and random parts of it."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.data.decoding import Damaged, crop, decode
from sftn.errors import InputError


def paint(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    """An image of one colour, lossless."""
    Image.new(mode, size, value if mode == "L" else (value, 255 - value, 7)).save(path)


@pytest.mark.parametrize("high", [False, True])
def test_the_shorter_side_is_resized_and_the_centre_kept(high, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (48, 16, 3) if high else (16, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    whole = image.resize((32, 96) if high else (96, 32), Image.Resampling.BILINEAR)
    centre = whole.crop((0, 32, 32, 64) if high else (32, 0, 64, 32))
    made = decode(tmp_path / "a.png", 32).astype(int)
    # Pillow rounds between its two passes, and which one goes first depends on the sizes: one level at most.
    assert np.abs(made - np.asarray(centre).transpose(2, 0, 1)).max() <= 1


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 32), pixels.transpose(2, 0, 1))


def test_a_large_jpeg_comes_out_as_a_slow_reduction_would(tmp_path):
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (512, 1))] * 3, 2)).save(tmp_path / "a.jpg", quality=95)
    expected = np.tile(ramp.reshape(32, 16).mean(1), (32, 1))
    assert np.abs(decode(tmp_path / "a.jpg", 32)[0] - expected).max() < 4


def test_a_photograph_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert decode(tmp_path / "a.png", 8)[0, :, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_every_kind_of_image_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    assert (decode(path, 8) > 250).all()


def test_a_grey_image_has_three_equal_channels(tmp_path):
    paint(tmp_path / "a.png", 93, mode="L")
    assert decode(tmp_path / "a.png", 8).tolist() == np.full((3, 8, 8), 93).tolist()


def test_sixteen_bits_of_grey_are_scaled(tmp_path):
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(np.array([[0, 40000], [65535, 300]], np.uint16)).save(tmp_path / name)
        assert decode(tmp_path / name, 2)[1].tolist() == [[0, 156], [255, 1]], name


def test_pixels_of_an_unknown_range_are_refused(tmp_path):
    for kind in (np.int32, np.float32):
        Image.fromarray(np.full((8, 8), 7, kind)).save(tmp_path / "a.tif")
        with pytest.raises(Damaged, match="convert it to 8 bits"):
            decode(tmp_path / "a.tif", 8)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_image_of_an_animation_is_read(suffix, tmp_path):
    frames = [Image.new("RGB", (8, 8), (level,) * 3) for level in (200, 10, 90)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert np.abs(decode(tmp_path / f"a.{suffix}", 8).astype(int) - 200).max() < 4


@pytest.mark.filterwarnings("error")
def test_alpha_is_dropped_and_the_colours_under_it_stay(tmp_path):
    Image.new("RGBA", (8, 8), (250, 9, 120, 0)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 8)[:, 0, 0].tolist() == [250, 9, 120]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 250, 9, 120])
    palette.save(tmp_path / "b.png", transparency=bytes([255, 0]))
    assert decode(tmp_path / "b.png", 8)[:, 0, 0].tolist() == [250, 9, 120]


def test_the_centre_is_cut_out_of_what_the_shorter_side_becomes(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 32, resize=64), pixels[16:48, 32:64].transpose(2, 0, 1))
    with open(tmp_path / "a.png", "rb") as content:
        assert np.array_equal(decode(Path("x"), 32, content, resize=64), pixels[16:48, 32:64].transpose(2, 0, 1))


def test_what_the_system_refuses_is_not_damage(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="No such file") as error:
        decode(tmp_path / "a.png", 8)
    assert not isinstance(error.value, Damaged)

    def full(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(InputError, match="ulimit"):
        decode(tmp_path / "a.png", 8)


def coordinates(path: Path, width: int, height: int) -> None:
    """Red is the column, green the row."""
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(path)


def test_parts_are_as_large_and_as_wide_as_they_may_be(tmp_path):
    coordinates(tmp_path / "a.png", 200, 150)
    uniform = np.random.default_rng(0).random
    areas, ratios, corners = [], [], []
    for _ in range(600):
        made = crop(tmp_path / "a.png", 32, uniform).astype(float)
        # Bilinear resizing keeps means: the difference of the outer columns is 31/32 of the width.
        w, h = ((made[:, -1, 0] - made[:, 0, 0]).mean() * 32 / 31, (made[-1, :, 1] - made[0, :, 1]).mean() * 32 / 31)
        areas.append(w * h / 30000)
        ratios.append(np.log(w / h))
        corners.append(made[:, 0, 0].mean() / (200 - w) if w < 190 else 0.5)
    assert 0.06 < min(areas) < 0.12
    assert 0.9 < max(areas) < 1.05
    # What is drawn again until it fits favours small parts: the same by rejecting many at once.
    rng = np.random.default_rng(1)
    area, ratio = rng.uniform(0.08, 1, 100_000), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 100_000))
    fits = (np.sqrt(area * 30000 * ratio) <= 200) & (np.sqrt(area * 30000 / ratio) <= 150)
    assert abs(np.mean(areas) - area[fits].mean()) < 0.03
    assert abs(np.mean(ratios) - np.log(ratio[fits]).mean()) < 0.025
    assert abs(abs(np.array(ratios)).max() - np.log(4 / 3)) < 0.06
    assert abs(np.mean(corners) - 0.5) < 0.05


def test_a_draft_sees_the_same_part(tmp_path):
    y, x = np.mgrid[:900, :1200]
    smooth = np.stack([x / 5, y / 4, (x + y) / 10], 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    for seed in range(20):
        fast, slow = (
            crop(tmp_path / "a.jpg", 32, np.random.default_rng(seed).random, draft=draft).astype(int)
            for draft in (True, False)
        )
        assert np.abs(fast - slow).max() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(smooth)).save(tmp_path / "b.jpg", quality=95, exif=exif)
    turned = crop(tmp_path / "b.jpg", 32, np.random.default_rng(3).random).astype(int)
    assert np.abs(turned - crop(tmp_path / "a.jpg", 32, np.random.default_rng(3).random)).max() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 500)])
def test_odd_shapes_give_parts_too(size, tmp_path):
    Image.new("RGB", size, (5, 6, 7)).save(tmp_path / "a.png")
    for seed in range(5):
        made = crop(tmp_path / "a.png", 8, np.random.default_rng(seed).random)
        assert (made == [5, 6, 7]).all()


def test_a_strip_does_not_blow_up(tmp_path):
    paint(tmp_path / "a.png", 10, (200_000, 1))
    assert decode(tmp_path / "a.png", 32).shape == (3, 32, 32)
