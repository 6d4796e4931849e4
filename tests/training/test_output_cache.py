from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sftn.data.dataset import Split
from sftn.data.loader import Loader
from sftn.storage.row_store import RowStore
from sftn.training.output_cache import DOUBTED, FLOOR, OnDisk, OutputCache, hit_rate, same_in_parts, size
from tests.support import tiny


class Teacher:
    """A tiny network that counts the images it was asked about."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = tiny.network().eval().to(memory_format=torch.channels_last)
        self.seen = 0

    def __call__(self, views: Tensor) -> Tensor:
        self.seen += len(views)
        with torch.no_grad():
            return self.network(views)


def questions(batches: int, images: int, outcomes: int, batch: int = 32) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Views that follow from image and outcome, as crops do."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(images, *tiny.IMAGE, generator=generator)
    found = []
    for _ in range(batches):
        index = torch.randperm(images, generator=generator)[:batch]
        which = torch.randint(outcomes, (batch,), generator=generator)
        views = pictures[index] * (1 + which)[:, None, None, None]
        found.append((views.contiguous(memory_format=torch.channels_last), index, which))
    return found


def test_answers_are_bit_for_bit_those_of_the_teacher_run_every_time() -> None:
    teacher, alone = Teacher(), Teacher()
    assert same_in_parts(alone, torch.randn(48, *tiny.IMAGE).contiguous(memory_format=torch.channels_last))
    asked = OutputCache(teacher, images=40, outcomes=3)
    for views, index, which in questions(30, 40, 3):
        assert torch.equal(asked(views, index, which), alone(views))
    assert asked.asked == 30 * 32
    assert asked.rate > 0.8
    assert teacher.seen < 30 * 32 / 3


def test_a_view_is_asked_once_and_an_image_alone_is_asked_in_company() -> None:
    teacher = Teacher()
    asked = OutputCache(teacher, images=40, outcomes=1)
    views, index, which = questions(1, 40, 1)[0]
    asked(views, index, which)
    asked(views, index, which)
    assert teacher.seen == 32
    index = index.clone()
    index[0] = next(n for n in range(40) if n not in index.tolist())
    asked(views, index, which)
    assert teacher.seen == 32 + FLOOR
    assert asked.hits == 32 + 31
    assert [size(missing) for missing in (1, 16, 17, 24, 64)] == [16, 16, 20, 24, 64]


def test_sizes_of_questions_are_few() -> None:
    """Each new one costs a CPU the preparation of every convolution."""
    sizes: set[int] = set()
    teacher = Teacher()

    def counted(views: Tensor) -> Tensor:
        sizes.add(len(views))
        return teacher(views)

    asked = OutputCache(counted, images=96, outcomes=3)
    for question in questions(60, 96, 3, batch=64):
        asked(*question)
    assert sizes <= set(range(16, 65, 4))


def test_a_teacher_that_rounds_otherwise_in_parts_is_found() -> None:
    images = torch.randn(64, 4)
    assert same_in_parts(lambda part: part * 2, images)
    assert not same_in_parts(lambda part: part * (2 if len(part) != 40 else 2 + 1e-6), images)


def test_memory_is_bounded_and_what_does_not_fit_is_asked_again() -> None:
    teacher, alone = Teacher(), Teacher()
    row = 3 * tiny.CLASSES * 4
    asked = OutputCache(teacher, images=40, outcomes=3, room=10 * row + 1)
    for views, index, which in questions(30, 40, 3):
        assert torch.equal(asked(views, index, which), alone(views))
    assert asked.kept == 10
    assert 0.15 < asked.rate < 0.25


def on_disk(folder: Path, *widths: int, like: Tensor) -> OnDisk:
    """Stores of some numbers of each output, for 40 images in 3 views."""
    parts = enumerate(widths)
    kept = [RowStore(folder, {"part": n}, {}, 120, width * like.element_size(), room=2**20) for n, width in parts]
    return OnDisk(kept, like)


def test_stores_serve_the_next_process_and_keep_the_dtype(tmp_path: Path) -> None:
    def half(views: Tensor) -> Tensor:
        return teacher(views).bfloat16()

    teacher = Teacher()
    like = torch.zeros(1, tiny.CLASSES, dtype=torch.bfloat16)
    caches = [OutputCache(half, 40, 3, rows=on_disk(tmp_path, 1, tiny.CLASSES - 1, like=like)) for _ in range(2)]
    expected = [caches[0](*question) for question in questions(30, 40, 3)]
    assert (caches[0].kept, caches[0].from_others) == (40, 0)
    teacher.seen = 0
    for question, answer in zip(questions(30, 40, 3), expected):
        found = caches[1](*question)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, answer)
    compared = -(-DOUBTED // 32) * 32
    assert teacher.seen == compared, "all others were there"
    assert caches[1].hits == caches[1].from_others == 30 * 32 - compared


def test_outputs_that_are_not_the_teachers_are_noticed_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, alone = Teacher(), Teacher()
    like = torch.zeros(1, tiny.CLASSES)
    foreign = OutputCache(lambda views: teacher(views) * (1 + 1e-6), 40, 3, rows=on_disk(tmp_path, 4, like=like))
    for question in questions(5, 40, 3):
        foreign(*question)
    content = next(tmp_path.glob("*.rows")).read_bytes()
    cache = OutputCache(teacher, 40, 3, rows=on_disk(tmp_path, 4, like=like))
    for question in questions(30, 40, 3):
        assert torch.equal(cache(*question), alone(question[0]))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("outputs of a teacher on disk are not its own, and ignored")
    assert cache.rate > 0.8, "they are kept in memory instead"
    assert cache.from_others == 0
    assert next(tmp_path.glob("*.rows")).read_bytes() == content


def test_a_disk_that_fails_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, alone = Teacher(), Teacher()
    cache = OutputCache(teacher, 40, 3, rows=on_disk(tmp_path, 4, like=torch.zeros(1, tiny.CLASSES)))
    asked = questions(30, 40, 3)
    cache(*asked[0])

    def fail(*how: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail)
    for question in asked:
        assert torch.equal(cache(*question), alone(question[0]))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("Input/output error")
    assert cache.hits > 32, "what is there is still looked up"


@pytest.mark.parametrize(("padding", "flip"), [(1, True), (2, False), (0, True)])
def test_an_outcome_is_one_picture_of_an_image(padding: int, flip: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.randint(256, (12, 3, 6, 6), generator=generator).to(torch.uint8), torch.arange(12))
    loader = Loader(split, batch=5, normalisation=(torch.zeros(3), torch.ones(3)), padding=padding, flip=flip)
    seen: dict[tuple[int, int], Tensor] = {}
    for epoch in range(200):
        outcomes = loader.outcomes(epoch)
        for batch in loader.epoch(epoch):
            for picture, index, which in zip(batch.images, batch.index, outcomes[batch.index]):
                assert torch.equal(seen.setdefault((int(index), int(which)), picture), picture)
    assert {which for _, which in seen} == set(range(loader.views))
    assert loader.views == (2 * padding + 1) ** 2 * (2 if flip else 1)
    pictures = {(index, picture.numpy().tobytes()) for (index, _), picture in seen.items()}
    assert len(pictures) == len(seen), "no two outcomes look alike"
    usual = Loader(split, batch=5, normalisation=(torch.zeros(3), torch.ones(3)), padding=4, flip=True)
    assert usual.views == 162


def test_hit_rate_is_what_drawing_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(162, (200, 240), generator=generator)
    fresh = sum(len(row.unique()) for row in draws) / draws.numel()
    assert hit_rate(240, 162) == pytest.approx(1 - fresh, abs=0.01)
    assert hit_rate(1, 162) == pytest.approx(0)
