"""The loader against images cropped, mirrored and normalised one by one, and what it promises of an epoch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sftn.data.dataset import Dataset, Split
from sftn.data.loader import Batch, Loader, _crops, _padded, evaluation_batches
from sftn.errors import InputError

RAW = (torch.zeros(3), torch.ones(3))
"""A normalisation that leaves the pixels as they are."""


def noise(count: int, channels: int = 3, height: int = 8, width: int = 8) -> Split:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 5, (count,), generator=generator))


def coordinates(count: int) -> Split:
    """32×32 images whose first channel is the pixel's row and whose second its column, both from 1."""
    axis = torch.arange(1, 33, dtype=torch.uint8)
    image = torch.stack([axis[:, None].expand(32, 32), axis.expand(32, 32), torch.zeros(32, 32, dtype=torch.uint8)])
    return Split(image.expand(count, 3, 32, 32).contiguous(), torch.arange(count))


def every(loader: Loader, epoch: int = 0, start: int = 0) -> Batch:
    """A whole epoch as one batch."""
    return Batch(*(torch.cat(parts) for parts in zip(*loader.epoch(epoch, start))))


def geometry(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(row offset, column offset, mirrored) of each crop of `coordinates` with padding 4."""
    mirrored = images[:, 1, 16, 16] < images[:, 1, 16, 15]
    upright = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    # The pixel (16, 16) of a crop at offset (y, x) is (16 + y - 4, 16 + x - 4) of the image, and numbers begin with 1.
    return upright[:, 0, 16, 16].long() - 13, upright[:, 1, 16, 16].long() - 13, mirrored


def crop(image: Tensor, mean: Tensor, std: Tensor, row: int, column: int, padding: int, mirror: bool) -> Tensor:
    """One crop, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.empty(channels, height, width)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                v, u = y + row - padding, (width - 1 - x if mirror else x) + column - padding
                inside = 0 <= v < height and 0 <= u < width
                pixel = float(image[c, v, u]) if inside else 0.0
                out[c, y, x] = (pixel - float(mean[c])) / float(std[c])
    return out


@pytest.mark.parametrize(("channels", "height", "width", "flip"), [(3, 4, 6, True), (1, 5, 4, False), (2, 4, 4, True)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_image_is_one_crop_of_the_image_that_index_names(channels, height, width, flip, channels_last):
    split = noise(6, channels, height, width)
    mean, std = torch.linspace(90, 120, channels), torch.linspace(50, 70, channels)
    loader = Loader(
        split, batch=3, normalisation=(mean, std), padding=1, flip=flip, copies=2, channels_last=channels_last
    )
    seen = set()
    for batch in loader.epoch(0):
        assert batch.images.shape == (6, channels, height, width)
        assert batch.images.dtype == torch.float32
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.images.is_contiguous(memory_format=layout)
        assert torch.equal(batch.labels, split.labels[batch.index])
        for i, made in enumerate(batch.images):
            image = split.images[batch.index[i // 2]]
            ways = [(r, c, f) for r in range(3) for c in range(3) for f in range(1 + flip)]
            same = [way for way in ways if torch.allclose(made, crop(image, mean, std, *way[:2], 1, bool(way[2])))]
            assert len(same) == 1
            seen.add(same[0])
    assert len(seen) > 4


def test_the_padding_is_black_before_the_normalisation():
    loader = Loader(coordinates(64), batch=64, normalisation=(torch.full((3,), 10.0), torch.full((3,), 2.0)), padding=4)
    images = every(loader).images
    rows, _, _ = geometry(images * 2 + 10)
    assert (rows == 0).any()
    assert torch.equal(images[rows == 0][:, 0, :4], torch.full_like(images[rows == 0][:, 0, :4], -5.0))


def test_offsets_and_flips_are_uniform_and_independent_of_each_other():
    loader = Loader(coordinates(8100), batch=900, normalisation=RAW, padding=4, flip=True)
    rows, columns, mirrored = geometry(every(loader).images)
    cells = (rows * 9 + columns).bincount(minlength=81)
    assert len(cells) == 81
    # Chi-squared with 80 degrees of freedom: 124.8 is exceeded once in a thousand.
    assert float(((cells - 100.0) ** 2 / 100).sum()) < 124.8
    for part in (mirrored, mirrored[rows < 4], mirrored[columns > 5]):
        assert abs(float(part.double().mean()) - 0.5) < 4 * 0.5 / len(part) ** 0.5


def test_a_cpu_keeps_no_copy_of_the_images_and_pads_a_batch_as_others_pad_them_all():
    split = noise(10)
    loader = Loader(split, batch=4, normalisation=RAW, padding=2, flip=True)
    assert loader._images.data_ptr() == split.images.data_ptr()
    some = torch.tensor([7, 2])
    assert torch.equal(_crops(_padded(split.images, 2), 2)[some], _crops(_padded(split.images[some], 2), 2))


def test_without_padding_and_flip_the_images_stay_as_they_are():
    split = noise(10)
    made = every(Loader(split, batch=4, normalisation=RAW))
    assert torch.equal(made.images, split.images[made.index].float())


def test_every_image_comes_once_an_epoch_in_another_order_each_time():
    loader = Loader(noise(101), batch=16, normalisation=RAW)
    first, second = every(loader, 0).index, every(loader, 1).index
    assert len(loader) == len(list(loader.epoch(0))) == 7
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(101))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(101))


def test_an_epoch_depends_on_seed_and_number_alone():
    def epoch(seed: int, number: int) -> Batch:
        return every(Loader(noise(40), batch=8, normalisation=RAW, padding=2, flip=True, copies=2, seed=seed), number)

    loader = Loader(noise(40), batch=8, normalisation=RAW, padding=2, flip=True, copies=2, seed=3)
    torch.manual_seed(0)
    every(loader, 0)
    torch.rand(5)
    same = every(loader, 1)
    assert all(map(torch.equal, same, epoch(3, 1)))
    others = [epoch(3, 0), epoch(3, 2), epoch(2, 1), epoch(1, 3), epoch(4, 0)]
    orders = {tuple(other.index.tolist()) for other in (same, *others)}
    assert len(orders) == 6


def test_an_epoch_leaves_the_global_generator_alone():
    loader = Loader(noise(8), batch=4, normalisation=RAW, padding=1, flip=True)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    every(loader)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_an_epoch_can_be_taken_up_at_any_step(start):
    loader = Loader(noise(41), batch=8, normalisation=RAW, padding=2, flip=True)
    whole, rest = list(loader.epoch(4)), list(loader.epoch(4, start))
    # 41 images leave a single one over, which is dropped.
    assert len(whole) == 5
    assert len(rest) == 5 - start
    for expected, batch in zip(whole[start:], rest):
        assert all(map(torch.equal, expected, batch))


@pytest.mark.parametrize(("count", "sizes"), [(9, [4, 4]), (10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (5, [4])])
def test_the_last_batch_is_kept_unless_it_is_one_image(count, sizes):
    loader = Loader(noise(count), batch=4, normalisation=RAW)
    assert [len(batch.labels) for batch in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)


def test_copies_stand_side_by_side_and_differ():
    split = noise(300)
    loader = Loader(split, batch=50, normalisation=RAW, padding=4, flip=True, copies=3)
    for batch in loader.epoch(0):
        assert batch.images.shape == (150, 3, 8, 8)
        assert batch.labels.shape == batch.index.shape == (50,)
    located = Loader(coordinates(300), batch=300, normalisation=RAW, padding=4, flip=True, copies=3)
    rows, columns, mirrored = (part.view(300, 3) for part in geometry(every(located).images))
    way = (rows * 9 + columns) * 2 + mirrored
    # 1 of 162 pairs agrees by chance: 1.9 of 300 are expected.
    assert int((way[:, 0] == way[:, 1]).sum()) < 10
    assert int((way[:, 1] == way[:, 2]).sum()) < 10


def test_one_image_a_batch_is_allowed_where_it_is_asked_for():
    assert len(Loader(noise(3), batch=1, normalisation=RAW)) == 3


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": -3}, {"padding": -1}, {"copies": 0}])
def test_bad_numbers_are_named(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        Loader(noise(4), **{"batch": 2, "normalisation": RAW, **wrong})


def test_a_split_that_makes_no_batch_is_refused():
    with pytest.raises(InputError, match="at least 2 images"):
        Loader(noise(1), batch=4, normalisation=RAW)


def test_the_normalisation_gives_mean_0_and_deviation_1_over_the_training_images():
    train = noise(90, 3, 6, 6)
    shifted = Split((train.images // torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)), train.labels)
    dataset = Dataset("noise", shifted, noise(10, 3, 6, 6), tuple("abcde"))
    made = torch.cat(
        [b.images for b in evaluation_batches(dataset.train, batch=32, normalisation=dataset.normalisation)]
    ).double()
    assert made.mean((0, 2, 3)).abs().max() < 1e-5
    assert (made.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("channels_last", [True, False])
def test_plain_gives_every_image_as_it_is_in_order(channels_last):
    split = noise(9)
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    batches = list(evaluation_batches(split, batch=4, normalisation=(mean, std), channels_last=channels_last))
    assert [len(batch.index) for batch in batches] == [4, 4, 1]
    made = Batch(*map(torch.cat, zip(*batches)))
    assert torch.equal(made.images, (split.images.float() - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.equal(made.labels, split.labels)
    assert made.index.tolist() == list(range(9))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert batches[0].images.is_contiguous(memory_format=layout)
    with pytest.raises(InputError, match="batch 0"):
        next(evaluation_batches(split, batch=0, normalisation=(mean, std)))
